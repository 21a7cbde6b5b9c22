//! Prometheus's text format, version 0.0.4, with numbers as Go writes them: the bound `1.048576e+06` is a label's
//! value and has to be the same text.

use std::{borrow::Cow, fmt::Write};

use super::family::{Family, Sample, Value};

pub(super) fn write_families(families: &[Family]) -> String {
    let mut text = String::with_capacity(256 * 1024);
    for family in families {
        text.push_str("# HELP ");
        text.push_str(family.name);
        text.push(' ');
        escape(&mut text, family.help, false);
        text.push_str("\n# TYPE ");
        text.push_str(family.name);
        text.push(' ');
        text.push_str(family.kind.name());
        text.push('\n');
        for sample in &family.samples {
            write_sample(&mut text, family.name, sample);
        }
    }
    text
}

fn write_sample(text: &mut String, name: &str, sample: &Sample) {
    match &sample.value {
        Value::Number(value) => write_line(text, name, "", sample, None, *value),
        Value::Histogram { bounds, counts, sum } => {
            let mut total = 0;
            for (index, count) in counts.iter().enumerate() {
                total += count;
                let bound = bounds.get(index).copied().unwrap_or(f64::INFINITY);
                write_line(text, name, "_bucket", sample, Some(("le", bound)), total as f64);
            }
            write_line(text, name, "_sum", sample, None, *sum);
            write_line(text, name, "_count", sample, None, total as f64);
        }
        Value::Summary { quantiles, sum, count } => {
            for (quantile, value) in quantiles {
                write_line(text, name, "", sample, Some(("quantile", *quantile)), *value);
            }
            write_line(text, name, "_sum", sample, None, *sum);
            write_line(text, name, "_count", sample, None, *count as f64);
        }
    }
}

fn write_line(text: &mut String, name: &str, suffix: &str, sample: &Sample, extra: Option<(&str, f64)>, value: f64) {
    text.push_str(name);
    text.push_str(suffix);
    let mut before = '{';
    for (label, value) in &sample.labels {
        text.push(before);
        text.push_str(label);
        text.push_str("=\"");
        escape(text, value, true);
        text.push('"');
        before = ',';
    }
    if let Some((label, bound)) = extra {
        text.push(before);
        text.push_str(label);
        text.push_str("=\"");
        write_number(text, bound);
        text.push('"');
        before = ',';
    }
    if before == ',' {
        text.push('}');
    }
    text.push(' ');
    write_number(text, value);
    text.push('\n');
}

fn escape(text: &mut String, value: &str, quotes_too: bool) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes_too => text.push_str("\\\""),
            other => text.push(other),
        }
    }
}

/// As Go's strconv writes a float in its shortest form.
pub(super) fn write_number(text: &mut String, value: f64) {
    if value.is_nan() {
        text.push_str("NaN");
    } else if value.is_infinite() {
        text.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        text.push_str(&shortest(value));
    }
}

fn shortest(value: f64) -> Cow<'static, str> {
    if value == 0.0 {
        return Cow::Borrowed("0");
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("LowerExp always writes an exponent");
    let exponent: i32 = exponent.parse().expect("LowerExp writes a decimal exponent");
    if (-4..6).contains(&exponent) {
        return Cow::Owned(format!("{value}"));
    }
    let mut text = String::with_capacity(digits.len() + 4);
    let sign = if exponent < 0 { '-' } else { '+' };
    let _ = write!(text, "{digits}e{sign}{:02}", exponent.abs());
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_go_does() {
        for (value, expected) in [
            (0.0, "0"),
            (1.0, "1"),
            (-1.0, "-1"),
            (524_288.0, "524288"),
            (1_048_576.0, "1.048576e+06"),
            (2_147_483_648.0, "2.147483648e+09"),
            (0.0001, "0.0001"),
            (0.000_010_696, "1.0696e-05"),
            (1e100, "1e+100"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
        ] {
            let mut text = String::new();
            write_number(&mut text, value);
            assert_eq!(text, expected);
        }
    }
}
