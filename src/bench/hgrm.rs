//! Histograms as text, in the form that HdrHistogram's plotting tools read: percentiles, getting finer towards the top.

use std::fmt::Write;

use hdrhistogram::Histogram;

/// Values of `nanos` in microseconds, by percentile.
pub fn hgrm(nanos: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut total = 0;
    for step in nanos.iter_quantiles(5) {
        total += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / 1000.0;
        let quantile = step.quantile_iterated_to();
        let _ = write!(text, "{value:>12.3} {quantile:>14.12} {total:>10}");
        if quantile < 1.0 {
            let _ = write!(text, " {:>14.2}", 1.0 / (1.0 - quantile));
        }
        text.push('\n');
    }
    let micros = |nanos: f64| nanos / 1000.0;
    let _ = write!(
        text,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]\n#[Max     = {:>12.3}, Total count    = {:>12}]\n#[Buckets = \
         {:>12}, SubBuckets     = {:>12}]\n",
        micros(nanos.mean()),
        micros(nanos.stdev()),
        micros(nanos.max() as f64),
        nanos.len(),
        nanos.buckets(),
        2048
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_rise_to_all_values() {
        let mut nanos = super::super::tally::histogram();
        for value in 1..=1000u64 {
            nanos.record(value * 1000).unwrap();
        }
        let text = hgrm(&nanos);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_whitespace().map(|word| word.parse().ok()).collect())
            .filter(|row: &Vec<f64>| row.len() >= 3)
            .collect();
        assert!(rows.len() > 20, "{text}");
        assert!(
            rows.windows(2)
                .all(|pair| pair[0][0] <= pair[1][0] && pair[0][1] <= pair[1][1])
        );
        assert_eq!(rows.last().unwrap()[1..3], [1.0, 1000.0]);
        let middle = rows.iter().find(|row| row[1] >= 0.5).unwrap();
        assert!((499.0..502.0).contains(&middle[0]), "{middle:?}");
        assert!(text.contains("Total count    =         1000"));
    }
}
