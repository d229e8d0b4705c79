//! The report as one page that stands alone: no script, nothing loaded from elsewhere, light or dark as the reader's
//! system is. Every element is closed and every text escaped, so that it is XML as well as HTML.

use super::report::{Report, Row, columns};
use crate::command::measure::units::{show_count, show_ratio, show_threads, show_us};
use crate::command::time::utc;
use std::fmt::Write;

mod chart;

const STYLE: &str = include_str!("html/style.css");

/// The page.
pub(super) fn page(report: &Report) -> String {
    let mut page = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n");
    page += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n";
    page += "<meta name=\"color-scheme\" content=\"light dark\"/>\n";
    page += &format!("<title>seawall bench, {}</title>\n", escape(&moment(report)));
    page += &format!("<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n");
    page += &header(report);
    page += &summary(report);
    for rows in by_workload(&report.rows) {
        page += &workload(rows);
    }
    page += &footer(report);
    page += "</main>\n</body>\n</html>\n";
    page
}

/// Runs of rows of one workload.
fn by_workload(rows: &[Row]) -> impl Iterator<Item = &[Row]> {
    rows.chunk_by(|a, b| a.workload == b.workload)
}

fn header(report: &Report) -> String {
    let mut text = String::from("<header>\n<h1>seawall <span>bench</span></h1>\n");
    let made = format!("version {}, {}", report.version, moment(report));
    text += &format!("<p class=\"made\">{}</p>\n<dl>\n", escape(&made));
    for (name, value) in report.facts() {
        text += &format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(&value));
    }
    text + "</dl>\n</header>\n"
}

/// To the minute.
fn moment(report: &Report) -> String {
    let time = utc(report.unix_time_s.saturating_mul(1_000_000));
    time.chars().take("2026-03-01T09:30".len()).collect::<String>().replace('T', " ") + " UTC"
}

fn summary(report: &Report) -> String {
    let mut text = String::from("<section>\n<h2>All runs</h2>\n<div class=\"wide\"><table>\n<thead><tr>");
    for (name, about) in columns() {
        let _ = write!(text, "<th title=\"{}\">{}</th>", escape(about), escape(name));
    }
    text += "</tr></thead>\n";
    for rows in by_workload(&report.rows) {
        text += "<tbody>\n";
        for row in rows {
            for (number, line) in row.lines().iter().enumerate() {
                text += if number == 0 { "<tr>" } else { "<tr class=\"part\">" };
                for (column, cell) in line.iter().enumerate() {
                    let tag = if column == 0 { "th" } else { "td" };
                    let _ = write!(text, "<{tag}>{}</{tag}>", escape(cell.trim_start()));
                }
                text += "</tr>\n";
            }
        }
        text += "</tbody>\n";
    }
    text += "</table></div>\n<details><summary>What the columns mean</summary>\n<dl class=\"columns\">\n";
    for (name, about) in columns().filter(|(_, about)| !about.is_empty()) {
        text += &format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(about));
    }
    text + "</dl>\n</details>\n</section>\n"
}

/// One workload: for each number of threads a card with two charts. Their time axes are the same, to be compared.
fn workload(rows: &[Row]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let mut text = format!(
        "<section>\n<h2>{}</h2>\n<p class=\"about\">Each operation: {}.</p>\n",
        escape(&first.workload),
        escape(&first.about)
    );
    let times = chart::LogAxis::over(rows);
    for row in rows {
        text += &card(row, &times);
    }
    text + "</section>\n"
}

fn card(row: &Row, times: &chart::LogAxis) -> String {
    let mut text = format!("<article>\n<h3>{}</h3>\n<ul class=\"figures\">\n", show_threads(row.threads));
    let mut figure = |value: String, name: &str| {
        let _ = writeln!(text, "<li><b>{}</b> {}</li>", escape(&value), escape(name));
    };
    figure(show_count(row.ops_per_s), "operations/s");
    if let Some(ratio) = row.ratio_to_device {
        figure(format!("{} ×", show_ratio(ratio)), "the device");
    }
    figure(show_us(row.latency.p50_us), "p50");
    figure(show_us(row.latency.p99_us), "p99");
    figure(show_us(row.latency.p999_us), "p99.9");
    figure(show_us(row.latency.max_us), "longest");
    for part in row.parts() {
        figure(show_us(part.latency.p50_us), &format!("{}, p50", part.kind));
        figure(show_us(part.latency.p99_us), &format!("{}, p99", part.kind));
    }
    if row.conflicts > 0 {
        figure(show_count(row.conflicts as f64), "conflicts, run again");
    }
    if row.unserved > 0 {
        figure(show_count(row.unserved as f64), "due and never begun");
    }
    text += "</ul>\n<div class=\"charts\">\n";
    text += &chart::latency(row, times);
    text += &chart::throughput(row);
    text + "</div>\n</article>\n"
}

fn footer(report: &Report) -> String {
    let mut text = String::from("<footer>\n");
    if !report.comparison.is_empty() {
        text += "<section>\n<h2>Beside the earlier run</h2>\n<div class=\"wide\"><table>\n<thead><tr>";
        for name in ["workload", "threads", "ops/s", "p50", "p99", "p99.9", ""] {
            let _ = write!(text, "<th>{name}</th>");
        }
        text += "</tr></thead>\n<tbody>\n";
        for row in &report.comparison {
            let _ = write!(text, "<tr><th>{}</th><td>{}</td>", escape(&row.workload), row.threads);
            for ratio in [row.ops_ratio, row.p50_ratio, row.p99_ratio, row.p999_ratio] {
                let _ = write!(text, "<td>{ratio:.2} ×</td>");
            }
            text += if row.slower { "<td class=\"bad\">slower</td></tr>\n" } else { "<td>ok</td></tr>\n" };
        }
        text += "</tbody>\n</table></div>\n</section>\n";
    }
    text + "<p>Times count from an operation's call to its return; in an open loop, from the moment at which it was \
            meant to begin. Throughput is what ended in each tenth of a second.</p>\n</footer>\n"
}

/// Text as it stands in HTML and XML, between tags and in quoted attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // XML allows no other control characters.
            c if c.is_control() && !matches!(c, '\n' | '\t') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("a<b>&\"c\"\u{1b}\n"), "a&lt;b&gt;&amp;&quot;c&quot;\u{fffd}\n");
    }
}
