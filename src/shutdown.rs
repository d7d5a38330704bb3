//! When to stop: the first signal asks, the second one insists.
//!
//! [`Shutdown`] is a value, so that whoever runs the server decides what a signal is: the process
//! hands in SIGTERM and SIGINT, a test hands in a [`Trigger`].

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// A source of requests to stop.
#[derive(Debug)]
pub struct Shutdown(Source);

#[derive(Debug)]
enum Source {
    Process { terminate: Signal, interrupt: Signal },
    Trigger(mpsc::UnboundedReceiver<()>),
}

/// Asks a server to stop, as a signal would.
#[derive(Debug, Clone)]
pub struct Trigger(mpsc::UnboundedSender<()>);

impl Shutdown {
    /// SIGTERM (the kubelet's) and SIGINT (a person's ctrl-c) of this process.
    ///
    /// From here on neither signal ends the process by itself; call it inside a tokio runtime.
    pub fn on_signals() -> io::Result<Self> {
        Ok(Self(Source::Process {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        }))
    }

    /// One that is asked by hand. It never stops by itself, even if the trigger is dropped.
    pub fn by_hand() -> (Trigger, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Trigger(sender), Self(Source::Trigger(receiver)))
    }

    /// Waits for the next request to stop.
    ///
    /// This is cancellation-safe: a signal that came while nobody waited is seen by the next call.
    pub async fn asked(&mut self) {
        match &mut self.0 {
            Source::Process { terminate, interrupt } => {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            }
            Source::Trigger(receiver) => {
                if receiver.recv().await.is_none() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

impl Trigger {
    /// Asks once more. Nothing happens if the server is gone already.
    pub fn ask(&self) {
        // The error says that nobody listens any more, which is what was asked for.
        let _ = self.0.send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_signals_of_the_process_are_asks() {
        let mut shutdown = Shutdown::on_signals().unwrap();
        for signal in ["-TERM", "-INT"] {
            let process = std::process::id().to_string();
            let sent = std::process::Command::new("kill").args([signal, &process]).status();
            assert!(sent.unwrap().success());
            shutdown.asked().await;
        }
    }

    #[tokio::test]
    async fn every_ask_is_seen_once() {
        let (trigger, mut shutdown) = Shutdown::by_hand();
        trigger.ask();
        trigger.ask();
        shutdown.asked().await;
        shutdown.asked().await;
        let third = tokio::time::timeout(std::time::Duration::from_millis(20), shutdown.asked());
        assert!(third.await.is_err());
    }
}
