//! Two charts as inline SVG: how long operations took, and how many ended when. Colours come from the page's style.

use super::escape;
use crate::command::bench::report::Row;
use crate::command::measure::latency::Bar;
use crate::command::measure::series::SLOT;
use crate::command::measure::units::{show_count, show_threads, show_us};
use std::fmt::Write;

const WIDTH: f64 = 540.0;
const HEIGHT: f64 = 210.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = WIDTH - 14.0;
const TOP: f64 = 54.0;
const BOTTOM: f64 = HEIGHT - 38.0;
/// Room that a label takes.
const LABEL_WIDTH: f64 = 90.0;
/// A bar that counts anything is so high at least: it is the rare ones that matter.
const BAR_HEIGHT_MIN: f64 = 2.0;

/// From one time to another, each decade as wide as the next.
pub(super) struct LogAxis {
    from: f64,
    to: f64,
}

impl LogAxis {
    /// Holds every bar of these rows.
    pub(super) fn over(rows: &[Row]) -> LogAxis {
        let bars = || rows.iter().flat_map(|row| &row.histogram);
        let from = bars().map(|bar| bar.0).fold(f64::INFINITY, f64::min);
        let to = bars().map(|bar| bar.1).fold(0.0, f64::max);
        if from >= to {
            return LogAxis { from: 0.0, to: 1.0 };
        }
        // With some air at both ends.
        LogAxis { from: from.log10() - 0.05, to: to.log10() + 0.05 }
    }

    fn at(&self, us: f64) -> f64 {
        let share = (us.max(1e-3).log10() - self.from) / (self.to - self.from).max(1e-9);
        LEFT + share.clamp(0.0, 1.0) * (RIGHT - LEFT)
    }

    /// Powers of ten, and where they are few, 2 and 5 times those.
    fn ticks(&self) -> Vec<f64> {
        let steps: &[f64] = if self.to - self.from < 1.6 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let decades = self.from.floor() as i32..=self.to.ceil() as i32;
        let ticks = decades.flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)));
        ticks.filter(|us| (self.from..=self.to).contains(&us.log10())).collect()
    }
}

/// The share of operations by the time that they took.
pub(super) fn latency(row: &Row, axis: &LogAxis) -> String {
    let total = row.histogram.iter().map(|bar| bar.2).sum::<u64>().max(1) as f64;
    let highest = row.histogram.iter().map(|bar| bar.2).max().unwrap_or(0) as f64 / total * 100.0;
    let scale = Scale::up_to(highest);
    let mut svg = open(&format!(
        "Latency of {} with {}: half took at most {}, 99 of 100 at most {}",
        row.workload,
        show_threads(row.threads),
        show_us(row.latency.p50_us),
        show_us(row.latency.p99_us)
    ));
    svg += &title("Latency", "share of operations by time, logarithmic");
    svg += &scale.lines(|value| format!("{} %", plain(value)));
    for us in axis.ticks() {
        let x = axis.at(us);
        let _ = write!(
            svg,
            "<line class=\"tick\" x1=\"{x:.1}\" y1=\"{BOTTOM}\" x2=\"{x:.1}\" y2=\"{:.1}\"/>",
            BOTTOM + 4.0
        );
        let _ = writeln!(
            svg,
            "<text class=\"axis\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            BOTTOM + 17.0,
            round_us(us)
        );
    }
    for Bar(from, to, count) in &row.histogram {
        let share = *count as f64 / total * 100.0;
        let height = (BOTTOM - scale.at(share)).max(BAR_HEIGHT_MIN);
        let (x, end) = (axis.at(*from), axis.at(*to));
        let _ = writeln!(
            svg,
            "<rect class=\"bar\" x=\"{x:.2}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{height:.2}\"><title>{} to {}: {} \
             operations</title></rect>",
            BOTTOM - height,
            (end - x - 0.6).max(0.6),
            show_us(*from),
            show_us(*to),
            show_count(*count as f64)
        );
    }
    svg += &marks(row, axis);
    svg + "</svg>\n"
}

/// Quantiles as lines, each label on a line of its own: they may be close together. Labels stand on the side where
/// there is room, and the mark on that side is the highest, so that its line does not cross the other labels.
fn marks(row: &Row, axis: &LogAxis) -> String {
    let latency = &row.latency;
    let marks = [(latency.p50_us, "p50"), (latency.p99_us, "p99"), (latency.p999_us, "p99.9")];
    let to_left = axis.at(latency.p50_us) > LEFT + LABEL_WIDTH;
    let mut svg = String::new();
    for (index, (us, name)) in marks.into_iter().enumerate() {
        let line = if to_left { marks.len() - 1 - index } else { index };
        let (x, y) = (axis.at(us), TOP - 26.0 + 11.0 * line as f64);
        let is_left = to_left || x > RIGHT - LABEL_WIDTH;
        let (anchor, shift) = if is_left { ("end", -4.0) } else { ("start", 4.0) };
        let _ = write!(
            svg,
            "<line class=\"mark\" x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{BOTTOM}\"/>",
            y - 8.0
        );
        let _ = writeln!(
            svg,
            "<text class=\"mark\" x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{name} {}</text>",
            x + shift,
            show_us(us)
        );
    }
    svg
}

/// Operations a second over the run.
pub(super) fn throughput(row: &Row) -> String {
    let slot_s = SLOT.as_secs_f64();
    let rates: Vec<f64> = row.ops_per_100_ms.iter().map(|count| *count as f64 / slot_s).collect();
    let scale = Scale::up_to(rates.iter().copied().fold(row.ops_per_s, f64::max));
    let length_s = (rates.len() as f64 * slot_s).max(slot_s);
    let x = |seconds: f64| LEFT + seconds / length_s * (RIGHT - LEFT);
    let mut svg = open(&format!(
        "Throughput of {} with {}: {} operations a second on average",
        row.workload,
        show_threads(row.threads),
        show_count(row.ops_per_s)
    ));
    svg += &title("Throughput", "operations/s, by tenth of a second");
    svg += &scale.lines(short);
    let step = nice_step(length_s, 6.0);
    for number in 0.. {
        let seconds = number as f64 * step;
        if seconds > length_s + 1e-9 {
            break;
        }
        let anchor = if number == 0 {
            "start"
        } else if x(seconds) > RIGHT - 12.0 {
            "end"
        } else {
            "middle"
        };
        let _ = write!(
            svg,
            "<line class=\"tick\" x1=\"{0:.1}\" y1=\"{BOTTOM}\" x2=\"{0:.1}\" y2=\"{1:.1}\"/>",
            x(seconds),
            BOTTOM + 4.0
        );
        let shown = plain(seconds);
        let _ = writeln!(
            svg,
            "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{shown} s</text>",
            x(seconds),
            BOTTOM + 17.0
        );
    }
    // Each slot is drawn as wide as it is.
    let mut line = String::new();
    for (slot, rate) in rates.iter().enumerate() {
        let (from, to) = (x(slot as f64 * slot_s), x((slot + 1) as f64 * slot_s));
        let y = scale.at(*rate);
        let _ = write!(line, " {from:.1},{y:.1} {to:.1},{y:.1}");
    }
    if !rates.is_empty() {
        let _ = writeln!(
            svg,
            "<polygon class=\"area\" points=\"{LEFT:.1},{BOTTOM:.1}{line} {RIGHT:.1},{BOTTOM:.1}\"/>"
        );
        let _ = writeln!(svg, "<polyline class=\"line\" points=\"{}\"/>", line.trim_start());
    }
    let mean = scale.at(row.ops_per_s);
    let _ = writeln!(
        svg,
        "<line class=\"mark\" x1=\"{LEFT}\" y1=\"{mean:.1}\" x2=\"{RIGHT}\" y2=\"{mean:.1}\"/>"
    );
    let text = format!("average {}", show_count(row.ops_per_s));
    let _ = writeln!(
        svg,
        "<text class=\"mark\" x=\"{RIGHT}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
        TOP - 15.0
    );
    svg + "</svg>\n"
}

fn open(label: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n", escape(label))
}

fn title(name: &str, about: &str) -> String {
    format!(
        "<text class=\"name\" x=\"2\" y=\"13\">{name}<tspan class=\"axis\" dx=\"8\">{about}</tspan></text>\n"
    )
}

/// A linear axis from 0 to a round number.
struct Scale {
    step: f64,
    to: f64,
}

impl Scale {
    fn up_to(highest: f64) -> Scale {
        let step = nice_step(highest.max(1e-9), 4.0);
        Scale { step, to: (highest / step).ceil().max(1.0) * step }
    }

    fn at(&self, value: f64) -> f64 {
        BOTTOM - (value / self.to).clamp(0.0, 1.0) * (BOTTOM - TOP)
    }

    fn lines(&self, show: impl Fn(f64) -> String) -> String {
        let mut svg = String::new();
        for number in 0..=(self.to / self.step).round() as u32 {
            let value = f64::from(number) * self.step;
            let y = self.at(value);
            let class = if number == 0 { "base" } else { "grid" };
            let _ = write!(
                svg,
                "<line class=\"{class}\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\"/>"
            );
            let text = show(value);
            let _ = writeln!(
                svg,
                "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                LEFT - 6.0,
                y + 3.5
            );
        }
        svg
    }
}

/// 1, 2 or 5 times a power of ten, so that there are `count` steps or somewhat fewer.
fn nice_step(length: f64, count: f64) -> f64 {
    let rough = length / count;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * power >= rough * 0.999);
    step.unwrap_or(10.0) * power
}

/// A round number without the noise of its last binary digits.
fn plain(number: f64) -> String {
    format!("{}", (number * 1e6).round() / 1e6)
}

/// `250k`, `1.5M`.
fn short(count: f64) -> String {
    match count {
        count if count >= 1e6 => format!("{}M", plain(count / 1e6)),
        count if count >= 1e3 => format!("{}k", plain(count / 1e3)),
        count => plain(count),
    }
}

/// A time whose digits are few: `20 µs`.
fn round_us(us: f64) -> String {
    match us {
        us if us < 0.999 => format!("{:.0} ns", us * 1e3),
        us if us < 999.0 => format!("{us:.0} µs"),
        us if us < 999_000.0 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.0} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::report::test_row;
    use super::*;

    #[test]
    fn axes_have_round_numbers() {
        for (length, step) in [(5.0, 1.0), (0.1, 0.02), (100.0, 20.0), (250_000.0, 50_000.0), (61.0, 20.0)] {
            assert!(
                (nice_step(length, 6.0) / step - 1.0).abs() < 1e-9,
                "{length}: {}",
                nice_step(length, 6.0)
            );
        }
        let scale = Scale::up_to(23.0);
        assert!((scale.to - 30.0).abs() < 1e-9 && (scale.step - 10.0).abs() < 1e-9);
        assert!((scale.at(0.0) - BOTTOM).abs() < 1e-9 && (scale.at(30.0) - TOP).abs() < 1e-9);
        assert_eq!([0.0, 250_000.0, 1.5e6].map(short), ["0", "250k", "1.5M"]);
        assert_eq!([0.5, 20.0, 5e3, 1e6].map(round_us), ["500 ns", "20 µs", "5 ms", "1 s"]);
    }

    #[test]
    fn the_time_axis_holds_every_row() {
        let rows = [test_row("scan", 1, 1000.0, 100.0), test_row("scan", 2, 1000.0, 40_000.0)];
        let axis = LogAxis::over(&rows);
        for bar in rows.iter().flat_map(|row| &row.histogram) {
            assert!(axis.at(bar.0) > LEFT && axis.at(bar.1) < RIGHT && axis.at(bar.0) < axis.at(bar.1));
        }
        let shown: Vec<String> = axis.ticks().into_iter().map(round_us).collect();
        assert_eq!(shown, ["100 µs", "1 ms", "10 ms", "100 ms"]);
        assert!(LogAxis::over(&[]).ticks().len() > 1);
    }

    #[test]
    fn charts_of_nothing_are_charts() {
        let mut row = test_row("scan", 1, 0.0, 0.0);
        (row.histogram, row.ops_per_100_ms) = (Vec::new(), Vec::new());
        let rows = [row];
        for svg in [latency(&rows[0], &LogAxis::over(&rows)), throughput(&rows[0])] {
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn what_is_rare_is_still_seen() {
        let mut row = test_row("scan", 1, 1000.0, 100.0);
        row.histogram = vec![Bar(10.0, 20.0, 1_000_000), Bar(100.0, 200.0, 1)];
        let rows = [row];
        let svg = latency(&rows[0], &LogAxis::over(&rows));
        assert!(svg.contains("height=\"2.00\"><title>100 µs to 200 µs: 1 operations"), "{svg}");
    }
}
