//! The ratios as a picture: one bar a server for each load, on a logarithmic scale.

use std::fmt::Write as _;

use crate::report::{Report, Row};

/// What is drawn, in this order: measure, connections, and what a person calls that.
const DRAWN: [(&str, usize, &str); 3] = [
    ("CPU a review", 32, "CPU a review, 32 connections"),
    ("p50", 1, "p50, 1 connection"),
    ("p99", 32, "p99, 32 connections"),
];

const LEFT: f64 = 330.0;
const WIDTH: f64 = 470.0;
const BAR: f64 = 18.0;

pub fn draw(report: &Report) -> String {
    let mut body = String::new();
    let mut top = 64.0;
    let drawn = |row: &&Row| row.ratio.is_some() && DRAWN.iter().any(|of| is(row, of));
    let ratios = report.rows.iter().filter(drawn).filter_map(|row| row.ratio);
    let most = ratios.map(|ratio| ratio.max).fold(2.0, f64::max);
    for of in DRAWN {
        let rows: Vec<_> = report.rows.iter().filter(|row| is(row, &of)).collect();
        let mut case = "";
        for row in rows {
            if row.case != case {
                case = &row.case;
                top += 10.0;
                text(&mut body, 12.0, top + 13.0, "start", "#57606a", &format!("{}: {case}", of.2));
                top += 20.0;
            }
            let Some(ratio) = row.ratio else { continue };
            let length = |ratio: f64| (ratio.max(1.0).ln() / most.ln() * WIDTH).max(2.0);
            let colour = match row.server.as_str() {
                "devgrant" => "#1a7f37",
                "null" => "#8c959f",
                _ => "#bc4c00",
            };
            text(&mut body, LEFT - 10.0, top + 13.0, "end", "#1f2328", &row.server);
            let _ = writeln!(
                body,
                r#"<rect x="{LEFT}" y="{top}" width="{:.1}" height="{:.1}" fill="{colour}"/>"#,
                length(ratio.median),
                BAR - 4.0
            );
            let middle = top + BAR / 2.0 - 2.0;
            let _ = writeln!(
                body,
                r##"<line x1="{:.1}" x2="{:.1}" y1="{middle:.1}" y2="{middle:.1}" stroke="#1f2328"/>"##,
                LEFT + length(ratio.min),
                LEFT + length(ratio.max)
            );
            let label = format!("{:.2} ×", ratio.median);
            let end = LEFT + length(ratio.max.max(ratio.median)) + 6.0;
            text(&mut body, end, top + 13.0, "start", "#1f2328", &label);
            top += BAR;
        }
    }
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"880\" height=\"{:.0}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        top + 20.0
    );
    let said = |name: &str| {
        report.header.iter().find(|(said, _)| said == name).map_or("", |(_, value)| value)
    };
    text(
        &mut out,
        12.0,
        24.0,
        "start",
        "#1f2328",
        "What a review costs, as a multiple of a server that does nothing",
    );
    let line = format!(
        "8.6 KB pod, TLS 1.3, HTTP/1.1; median and spread of {} rounds, logarithmic; {}, {} processors",
        said("rounds"),
        said("date"),
        said("processors")
    );
    text(&mut out, 12.0, 44.0, "start", "#57606a", &line);
    out + &body + "</svg>\n"
}

fn is(row: &Row, of: &(&str, usize, &str)) -> bool {
    row.measure == of.0 && row.connections == of.1
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, colour: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        out,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{colour}">{text}</text>"#
    );
}
