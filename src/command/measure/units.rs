//! Durations, sizes and counts as people write and read them.

use std::time::Duration;

/// `250us`, `5ms`, `1.5s`, `2m`, `24h`, `7d`: a number and its unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let second = match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        "" => return Err("say the unit as well: us, ms, s, m, h or d".to_owned()),
        _ => return Err(format!("`{unit}` is no unit of time: us, ms, s, m, h and d are")),
    };
    let number = number.parse::<f64>().map_err(|_| format!("`{number}` is no number"))?;
    Duration::try_from_secs_f64(number * second).map_err(|_| "this is no duration".to_owned())
}

/// `4096`, `16k`, `1M`: bytes, in powers of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err(format!("`{unit}` is no unit of size: k, M and G are")),
    };
    let number = number.parse::<u64>().map_err(|_| format!("`{number}` is no whole number"))?;
    number.checked_mul(factor).ok_or_else(|| "this is too large".to_owned())
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim())
}

/// A time in µs with three digits that count and its unit: `3.14 ms`.
pub(crate) fn show_us(us: f64) -> String {
    let (value, unit) = match us {
        us if us < 1.0 => (us * 1e3, "ns"),
        us if us < 1e3 => (us, "µs"),
        us if us < 1e6 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let digits = match value {
        value if value >= 100.0 || unit == "ns" => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {unit}")
}

/// A size in the largest unit that leaves it whole, or in MiB and GiB with one digit.
pub(crate) fn show_bytes(bytes: u64) -> String {
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit {
            let whole = bytes.is_multiple_of(unit);
            return if whole {
                format!("{} {name}", bytes / unit)
            } else {
                format!("{:.1} {name}", bytes as f64 / unit as f64)
            };
        }
    }
    format!("{bytes} B")
}

/// A ratio with the digits that count: `0.95`, `12.3`, `1,234`.
pub(crate) fn show_ratio(ratio: f64) -> String {
    match ratio {
        ratio if ratio < 9.995 => format!("{ratio:.2}"),
        ratio if ratio < 99.95 => format!("{ratio:.1}"),
        ratio => show_count(ratio),
    }
}

/// A rate or a count, to the next whole number, in groups of three digits.
pub(crate) fn show_count(count: f64) -> String {
    let digits = format!("{count:.0}");
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `1 thread`, `8 threads`.
pub(crate) fn show_threads(threads: u32) -> String {
    if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, us) in
            [("5ms", 5_000), ("250us", 250), ("250 µs", 250), ("1.5s", 1_500_000), ("2m", 120_000_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_micros(us)), "{text}");
        }
        for text in ["5", "", "ms", "5 parsecs", "-1s", "1.2.3s", "99999999999999999999m"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_in_powers_of_1024() {
        for (text, number) in
            [("4096", 4096), ("4k", 4096), ("16 KiB", 16384), ("1M", 1 << 20), ("2g", 2 << 30)]
        {
            assert_eq!(bytes(text), Ok(number), "{text}");
        }
        for text in ["", "k", "1.5k", "-4k", "4 blocks", "99999999999G"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_has_the_digits_that_count() {
        let times =
            [(0.51, "510 ns"), (4.0, "4.00 µs"), (81.25, "81.2 µs"), (999.0, "999 µs"), (3140.0, "3.14 ms")];
        for (us, shown) in times {
            assert_eq!(show_us(us), shown);
        }
        assert_eq!(show_us(2.5e6), "2.50 s");
        for (bytes, shown) in
            [(100, "100 B"), (4096, "4 KiB"), (1 << 20, "1 MiB"), (25_238_000_000, "23.5 GiB")]
        {
            assert_eq!(show_bytes(bytes), shown);
        }
        for (ratio, shown) in [(0.0, "0.00"), (1.0, "1.00"), (9.996, "10.0"), (34.56, "34.6"), (99.96, "100")]
        {
            assert_eq!(show_ratio(ratio), shown);
        }
        for (count, shown) in [(0.0, "0"), (999.4, "999"), (999.5, "1,000"), (1_234_567.0, "1,234,567")] {
            assert_eq!(show_count(count), shown);
        }
    }
}
