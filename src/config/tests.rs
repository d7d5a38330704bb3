//! Values from all places, as they are merged, and how one that cannot be used is said.

use super::*;

#[expect(clippy::unwrap_in_result, reason = "a scratch folder that cannot be made is no result")]
fn merged(file: Option<&str>, environment: &[(&str, &str)], flags: Typed) -> Result<Merged, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = file.map(|text| {
        let path = folder.path().join("devgrant.yaml");
        std::fs::write(&path, text).unwrap();
        path
    });
    Merged::load(Sources {
        file: path,
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
        flags,
    })
}

/// That no configuration comes of this, and that these words say why.
#[track_caller]
fn fails(file: Option<&str>, environment: &[(&str, &str)], expected: &str) {
    let error = merged(file, environment, Typed::default())
        .and_then(|merged| merged.config().map(|_| ()))
        .unwrap_err()
        .to_string();
    assert!(error.contains(expected), "{error}\nshould contain: {expected}");
}

#[test]
fn later_places_win() {
    let flags = Typed { user: Some("flag".to_owned()), ..Typed::default() };
    let merged = merged(
        Some("prefix: file.example\nuser: file\nnamespace: file\nkubernetesVersion: 1.30\n"),
        &[("DEVGRANT_USER", "variable"), ("DEVGRANT_NAMESPACE", "variable")],
        flags,
    )
    .unwrap();
    let config = merged.config().unwrap();
    assert_eq!(config.assumed.user.as_deref(), Some("flag"));
    assert_eq!(config.assumed.namespace.as_deref(), Some("variable"));
    assert_eq!(config.settings.prefix, "file.example");
    assert_eq!(config.settings.kubernetes_version.minor, 30);
    assert_eq!(config.settings.own_namespace, Settings::OWN_NAMESPACE);
    assert_eq!(config.server.listen.to_string(), "0.0.0.0:8443");
}

#[test]
fn traces_are_off_until_somebody_names_a_collector() {
    let off = merged(None, &[], Typed::default()).unwrap();
    assert_eq!(off.config().unwrap().traces, None);
    let printed = off.to_yaml().unwrap();
    assert!(printed.contains("tracesSample"), "{printed}");
    let again = merged(Some(&printed), &[], Typed::default()).unwrap();
    assert_eq!(again.config().unwrap().traces, None);
    let file = "tracesEndpoint: http://collector:4318\ntracesSample: 0.5\n";
    let on = merged(Some(file), &[], Typed::default()).unwrap();
    let traces = on.config().unwrap().traces.unwrap();
    assert_eq!(traces.collector.port(), 4318);
    assert!((traces.sample - 0.5).abs() < f64::EPSILON);
}

#[test]
fn labels_replace_and_do_not_unite() {
    let flags = Typed { namespace_labels: Some("b=2".parse().unwrap()), ..Typed::default() };
    let merged = merged(Some("namespaceLabels: { a: 1 }\n"), &[], flags).unwrap();
    let labels = merged.config().unwrap().assumed.namespace_labels;
    assert_eq!(labels, BTreeMap::from([("b".to_owned(), "2".to_owned())]));
}

#[test]
fn defaults_depend_on_other_values() {
    let config = merged(
        None,
        &[("DEVGRANT_STANDALONE", "true"), ("POD_NAMESPACE", "grants")],
        Typed::default(),
    )
    .unwrap()
    .config()
    .unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8443");
    assert_eq!(config.settings.own_namespace, "grants");
}

#[test]
fn what_is_printed_reads_back_the_same() {
    let flags = Typed {
        policies: Some(vec!["a".into(), "b".into()]),
        kubernetes_version: Some("1.30".to_owned()),
        namespace_labels: Some("team=data,x=true".parse().unwrap()),
        ..Typed::default()
    };
    let first = merged(None, &[("DEVGRANT_MAX_IN_FLIGHT", "7")], flags).unwrap();
    let second = merged(Some(&first.to_yaml().unwrap()), &[], Typed::default()).unwrap();
    assert_eq!(first.typed(), second.typed());
}

#[test]
fn a_bad_value_of_traces_names_its_place() {
    for (file, environment, expected) in [
        (
            None,
            &[("DEVGRANT_TRACES_ENDPOINT", "collector:4318")][..],
            "variable DEVGRANT_TRACES_ENDPOINT: `collector:4318` does not begin with http://",
        ),
        (
            None,
            &[("DEVGRANT_TRACES_ENDPOINT", "")][..],
            "variable DEVGRANT_TRACES_ENDPOINT: there is no URL; write the URL of a collector",
        ),
        (
            None,
            &[("DEVGRANT_TRACES_SAMPLE", "0.01")][..],
            "variable DEVGRANT_TRACES_SAMPLE: works with tracesEndpoint only",
        ),
        (Some("tracesSample: 1\n"), &[][..], "key `tracesSample`: works with tracesEndpoint only"),
        (
            Some("tracesSample: 50%\n"),
            &[][..],
            "key `tracesSample`: `50%` is no share; write a number from 0",
        ),
        (None, &[("DEVGRANT_TRACES_SAMPLE", "1.5")][..], "variable DEVGRANT_TRACES_SAMPLE: `1.5`"),
        (None, &[("DEVGRANT_TRACES_SAMPLE", "NaN")][..], "variable DEVGRANT_TRACES_SAMPLE: `NaN`"),
    ] {
        fails(file, environment, expected);
    }
}

#[test]
fn a_bad_value_names_its_place() {
    for (file, environment, expected) in [
        (
            Some("prefix: Devices\n"),
            &[][..],
            "devgrant.yaml: key `prefix`: `Devices` is no DNS-1123 subdomain",
        ),
        (
            None,
            &[("DEVGRANT_LISTEN", "8443")][..],
            "variable DEVGRANT_LISTEN: `8443` is no address",
        ),
        (
            None,
            &[("DEVGRANT_MAX_IN_FLIGHT", "0")][..],
            "variable DEVGRANT_MAX_IN_FLIGHT: nothing would",
        ),
        (
            None,
            &[("DEVGRANT_MAX_IN_FLIGHT", "x")][..],
            "variable DEVGRANT_MAX_IN_FLIGHT: `x` is no whole number",
        ),
        (
            None,
            &[("DEVGRANT_ON_INVALID", "deny")][..],
            "variable DEVGRANT_ON_INVALID: unknown variant `deny`",
        ),
        (
            None,
            &[("DEVGRANT_PREFIXX", "a.b")][..],
            "variable DEVGRANT_PREFIXX: no such key; did you mean DEVGRANT_PREFIX",
        ),
        (
            None,
            &[("DEVGRANT_TLS_KEY", "k")][..],
            "variable DEVGRANT_TLS_KEY: the certificate is missing",
        ),
        (
            None,
            &[("DEVGRANT_CA_OUT", "ca.pem")][..],
            "variable DEVGRANT_CA_OUT: works with --standalone only",
        ),
        (
            Some("prefx: a.b\n"),
            &[][..],
            "devgrant.yaml: line 1: no such key `prefx`; did you mean `prefix`",
        ),
        (
            None,
            &[("DEVGRANT_LOG_LEVEL", "inof")][..],
            "variable DEVGRANT_LOG_LEVEL: `inof` is no log level; did you mean `info`",
        ),
        (Some("logLevel: banana\n"), &[][..], "devgrant.yaml: key `logLevel`: `banana` is no"),
        (Some("headTimeout: 5\n"), &[][..], "key `headTimeout`: `5` is no duration"),
        (Some("- a\n"), &[][..], "devgrant.yaml"),
        (
            Some("user: x\nmaxInFlight: \"many\"\n"),
            &[][..],
            "devgrant.yaml: line 2: key `maxInFlight`: a whole number belongs here",
        ),
        (
            Some("policies: emptyd\n"),
            &[][..],
            "line 1: key `policies`: a list, such as `[a, b]` belongs here",
        ),
        (
            Some("onInvalid: warn\n"),
            &[][..],
            "line 1: key `onInvalid`: unknown variant `warn`, expected one of Deny, Warn",
        ),
        (Some("standalone: maybe\n"), &[][..], "key `standalone`: `true` or `false` belongs"),
        (Some("prefix:\n- a\n"), &[][..], "key `prefix`: a text belongs here"),
        (Some("user: x\nuser: y\n"), &[][..], "line 2: the key `user` is there twice"),
        (Some("user: x\n---\nuser: y\n"), &[][..], "there is a second document"),
    ] {
        fails(file, environment, expected);
    }
}

#[test]
fn beyond_this_machine_namespaces_are_not_taken_as_opted_in_unasked() {
    let refused = |file, environment: &[_], flags| {
        merged(file, environment, flags).unwrap().config().err().map(|error| error.to_string())
    };
    let listening = |address: &str| Typed {
        standalone: Some(true),
        listen: Some(address.to_owned()),
        ..Typed::default()
    };
    for (file, environment, flags, place) in [
        (None, &[][..], listening("0.0.0.0:8443"), "flag --listen: 0.0.0.0:8443 is"),
        (None, &[], listening("[::]:8443"), "flag --listen: [::]:8443 is"),
        (
            Some("standalone: true\n"),
            &[("DEVGRANT_LISTEN", "10.0.0.1:8443")],
            Typed::default(),
            "variable DEVGRANT_LISTEN: 10.0.0.1:8443 is",
        ),
        (
            Some("standalone: true\nlisten: 0.0.0.0:8443\n"),
            &[],
            Typed::default(),
            "devgrant.yaml: key `listen`: 0.0.0.0:8443 is",
        ),
    ] {
        let error = refused(file, environment, flags).unwrap();
        assert!(error.contains(place), "{error}\nshould contain: {place}");
        assert!(error.contains("--namespace-labels"), "{error}");
    }
    for here in ["127.0.0.1:8443", "127.9.9.9:8443", "[::1]:8443", "[::ffff:127.0.0.1]:8443"] {
        assert_eq!(refused(None, &[], listening(here)), None, "{here}");
    }
    let labels = Some("team=data".parse().unwrap());
    let said = Typed { namespace_labels: labels, ..listening("0.0.0.0:8443") };
    assert_eq!(refused(None, &[], said), None);
    let variable = [("DEVGRANT_NAMESPACE_LABELS", "team=data")];
    assert_eq!(refused(None, &variable, listening("0.0.0.0:8443")), None);
    let file = Some("namespaceLabels: { team: data }\n");
    assert_eq!(refused(file, &[], listening("0.0.0.0:8443")), None);
    let cluster = Typed { standalone: None, ..listening("0.0.0.0:8443") };
    assert_eq!(refused(None, &[], cluster), None);
}

#[test]
fn a_flag_is_named_as_it_is_typed() {
    let flags = Typed { own_namespace: Some("A b".to_owned()), ..Typed::default() };
    let error = merged(None, &[], flags).unwrap().config().unwrap_err().to_string();
    assert!(error.starts_with("flag --own-namespace: `A b` is no name"), "{error}");
}

#[test]
fn service_links_are_no_settings() {
    let links = [
        ("DEVGRANT_SERVICE_HOST", "10.0.0.1"),
        ("DEVGRANT_SERVICE_PORT", "443"),
        ("DEVGRANT_SERVICE_PORT_HTTPS", "443"),
        ("DEVGRANT_PORT", "tcp://10.0.0.1:443"),
        ("DEVGRANT_PORT_443_TCP", "tcp://10.0.0.1:443"),
        ("DEVGRANT_PORT_443_TCP_ADDR", "10.0.0.1"),
        ("DEVGRANT_METRICS_SERVICE_HOST", "10.0.0.2"),
        ("DEVGRANT_METRICS_PORT_8080_TCP_PROTO", "tcp"),
    ];
    assert!(merged(None, &links, Typed::default()).is_ok());
}
