//! Curves as SVG: latencies by percentile on logarithmic axes, and figures over time. Text is left to the viewer's fonts.

use hdrhistogram::Histogram;
use plotters::{coord::ranged1d::ValueFormatter, prelude::*};

use super::{report::Report, tally::MOMENT_NANOS};

const WIDTH: u32 = 1080;
const PANEL_HEIGHT: u32 = 420;
const HEAD_HEIGHT: u32 = 64;
/// Told apart by people who see colours otherwise, too (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
];

/// A named line.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// In the legend.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// One drawing of a page.
#[derive(Clone, Debug, PartialEq)]
pub enum Panel {
    /// Latencies in microseconds over 1/(1 - quantile).
    Percentiles {
        /// Above it.
        title: String,
        /// Made by [`percentiles`].
        curves: Vec<Curve>,
    },
    /// Something over seconds.
    Time {
        /// Above it.
        title: String,
        /// What goes up.
        unit: String,
        /// Its curves.
        curves: Vec<Curve>,
    },
    /// Something over sizes or depths, both axes logarithmic.
    Sizes {
        /// Above it.
        title: String,
        /// What goes right.
        size: String,
        /// What goes up.
        unit: String,
        /// Its curves.
        curves: Vec<Curve>,
    },
}

/// A histogram's curve: 1/(1 - quantile) to the right, microseconds up. It ends at the largest value.
pub fn percentiles(name: &str, nanos: &Histogram<u64>) -> Curve {
    let end = (nanos.len() as f64).max(2.0);
    let points = nanos.iter_quantiles(8).map(|step| {
        let rest = 1.0 - step.quantile_iterated_to();
        (
            (1.0 / rest.max(1.0 / end)).clamp(1.0, end),
            step.value_iterated_to() as f64 / 1000.0,
        )
    });
    Curve {
        name: name.to_owned(),
        points: points.collect(),
    }
}

/// The drawings of a run of the load generator.
pub fn of_run(report: &Report) -> String {
    let mut curves: Vec<Curve> = report
        .tally
        .series()
        .map(|(operation, series)| percentiles(operation.name(), &series.latencies))
        .collect();
    if let Some(delay) = &report.tally.own_delay {
        curves.push(percentiles("generator's own delay", &delay.latencies));
    }
    let second = MOMENT_NANOS as f64 / 1e9;
    let mut moments = report.moments();
    // The last moment is not a whole one.
    moments.truncate(((report.elapsed.as_secs_f64() / second) as usize).max(1));
    let over_time = |value: &dyn Fn(usize) -> f64| {
        let points = (0..moments.len()).map(|at| (at as f64 * second, value(at)));
        points.collect::<Vec<_>>()
    };
    let throughput = Curve {
        name: "per second".to_owned(),
        points: over_time(&|at| moments[at].count as f64 / second),
    };
    let slowest = Curve {
        name: "slowest".to_owned(),
        points: over_time(&|at| moments[at].nanos_max as f64 / 1000.0),
    };
    let loop_kind = report
        .rate
        .map_or("closed loop".to_owned(), |rate| format!("open loop, {rate}/s"));
    let subtitle = format!(
        "{} clients, {} connections, {loop_kind}, {:.1} s; server {}",
        report.clients,
        report.connections,
        report.elapsed.as_secs_f64(),
        report.server_version
    );
    let panels = [
        Panel::Percentiles {
            title: "latency by percentile".to_owned(),
            curves,
        },
        Panel::Time {
            title: "throughput over time".to_owned(),
            unit: "per second".to_owned(),
            curves: vec![throughput],
        },
        Panel::Time {
            title: "slowest of each tenth of a second".to_owned(),
            unit: MICROSECONDS.to_owned(),
            curves: vec![slowest],
        },
    ];
    page(&format!("ringd bench {}", report.workload), &subtitle, &panels)
}

/// A page of drawings, one below the other.
pub fn page(title: &str, subtitle: &str, panels: &[Panel]) -> String {
    let mut text = String::new();
    {
        let height = HEAD_HEIGHT + PANEL_HEIGHT * panels.len() as u32;
        let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        // Drawing into a string fails only for coordinates that cannot be, which the panels' bounds rule out.
        draw(&root, title, subtitle, panels).expect("a drawing in memory");
        root.present().expect("a drawing in memory");
    }
    text
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(root: &Area<'_>, title: &str, subtitle: &str, panels: &[Panel]) -> Drawn {
    root.fill(&WHITE)?;
    root.draw_text(title, &("sans-serif", 22).into_font().color(&BLACK), (20, 12))?;
    let grey = RGBColor(90, 90, 90);
    root.draw_text(subtitle, &("sans-serif", 14).into_font().color(&grey), (20, 40))?;
    let (_, body) = root.split_vertically(HEAD_HEIGHT);
    for (area, panel) in body.split_evenly((panels.len(), 1)).iter().zip(panels) {
        match panel {
            Panel::Percentiles { title, curves } => draw_percentiles(area, title, curves)?,
            Panel::Time { title, unit, curves } => draw_time(area, title, unit, curves)?,
            Panel::Sizes {
                title,
                size,
                unit,
                curves,
            } => draw_sizes(area, title, size, unit, curves)?,
        }
    }
    Ok(())
}

/// Where a logarithmic axis begins and ends: at 1, 2 or 5 times a power of ten, around all values.
fn log_bounds(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let positive = values.filter(|value| *value > 0.0);
    let low = positive.clone().fold(f64::INFINITY, f64::min);
    let high = positive.fold(0.0, f64::max);
    if high == 0.0 {
        return (1.0, 10.0);
    }
    let power = |value: f64| 10f64.powf(value.log10().floor());
    let below = [5.0, 2.0, 1.0]
        .map(|step| step * power(low))
        .into_iter()
        .find(|bound| *bound <= low);
    let above = [1.0, 2.0, 5.0, 10.0]
        .map(|step| step * power(high))
        .into_iter()
        .find(|bound| *bound >= high);
    let (below, above) = (below.unwrap_or(low), above.unwrap_or(high));
    (below, if above > below { above } else { below * 10.0 })
}

fn draw_percentiles(area: &Area<'_>, title: &str, curves: &[Curve]) -> Drawn {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let (low, high) = log_bounds(points().map(|point| point.1));
    let right = points().map(|point| point.0).fold(10.0, f64::max);
    let mut chart = builder(area, title).build_cartesian_2d((1.0..right).log_scale(), (low..high).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .y_desc("latency")
        .x_labels(12)
        .y_labels(10)
        .x_label_formatter(&|x| percentile_label(*x))
        .y_label_formatter(&|y| round_label(*y, time))
        .y_max_light_lines(1)
        .light_line_style(RGBColor(235, 235, 235))
        .bold_line_style(RGBColor(205, 205, 205))
        .label_style(("sans-serif", 13))
        .draw()?;
    // Percentiles rise to the right: there is room below them.
    draw_curves(&mut chart, curves, true, SeriesLabelPosition::LowerRight)
}

fn draw_sizes(area: &Area<'_>, title: &str, size: &str, unit: &str, curves: &[Curve]) -> Drawn {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let (low, high) = log_bounds(points().map(|point| point.1));
    let left = points()
        .map(|point| point.0)
        .fold(f64::INFINITY, f64::min)
        .clamp(1e-3, 1e15);
    let right = points().map(|point| point.0).fold(left * 2.0, f64::max);
    let mut chart = builder(area, title).build_cartesian_2d((left..right).log_scale(), (low..high).log_scale())?;
    chart
        .configure_mesh()
        .x_desc(size)
        .y_desc(if unit == MICROSECONDS { "latency" } else { unit })
        .x_label_formatter(&|x| short(*x))
        .y_label_formatter(&|y| round_label(*y, label_of(unit)))
        .y_max_light_lines(1)
        .light_line_style(RGBColor(235, 235, 235))
        .bold_line_style(RGBColor(205, 205, 205))
        .label_style(("sans-serif", 13))
        .draw()?;
    draw_curves(&mut chart, curves, false, SeriesLabelPosition::UpperLeft)
}

fn draw_time(area: &Area<'_>, title: &str, unit: &str, curves: &[Curve]) -> Drawn {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let high = points().map(|point| point.1).fold(0.0, f64::max).max(1e-3) * 1.08;
    let right = points().map(|point| point.0).fold(0.1, f64::max);
    let mut chart = builder(area, title).build_cartesian_2d(0.0..right, 0.0..high)?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .y_desc(if unit == MICROSECONDS { "latency" } else { unit })
        .y_label_formatter(&|y| label_of(unit)(*y))
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .label_style(("sans-serif", 13))
        .draw()?;
    draw_curves(&mut chart, curves, curves.len() > 1, SeriesLabelPosition::UpperLeft)
}

fn builder<'a, 'b>(area: &'a Area<'b>, title: &str) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder
        .caption(title, ("sans-serif", 16))
        .margin(14)
        .margin_right(28)
        .x_label_area_size(42)
        .y_label_area_size(76);
    builder
}

fn draw_curves<'a, 'b: 'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>,
    curves: &[Curve],
    has_end_marks: bool,
    position: SeriesLabelPosition,
) -> Drawn
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    for (number, curve) in curves.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        // Beyond the colours, lines get thinner.
        let width = if number < COLOURS.len() { 2 } else { 1 };
        let points = curve.points.iter().copied();
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(width)))?
            .label(curve.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(width)));
        if !has_end_marks || curve.points.len() == 1 {
            let marks = curve.points.iter().map(|point| Circle::new(*point, 3, colour.filled()));
            if curve.points.len() <= 24 {
                chart.draw_series(marks)?;
            }
        }
    }
    if curves.len() > 1 {
        chart
            .configure_series_labels()
            .position(position)
            .margin(12)
            .label_font(("sans-serif", 13))
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(205, 205, 205))
            .draw()?;
    }
    Ok(())
}

/// `99.9 %` at 1000, nothing between powers of ten.
fn percentile_label(x: f64) -> String {
    let power = x.log10().round();
    if (x / 10f64.powf(power) - 1.0).abs() > 1e-6 {
        return String::new();
    }
    match power as i32 {
        0 => "0 %".to_owned(),
        power => format!(
            "{:.*} %",
            (power - 2).max(0) as usize,
            100.0 * (1.0 - 10f64.powi(-power))
        ),
    }
}

/// 1, 2 and 5 times powers of ten; nothing between, where labels would stand on each other.
fn round_label(value: f64, label: fn(f64) -> String) -> String {
    let digit = value / 10f64.powf((value * (1.0 + 1e-9)).log10().floor());
    match [1.0, 2.0, 5.0].iter().any(|round| (digit / round - 1.0).abs() < 1e-6) {
        true => label(value),
        false => String::new(),
    }
}

/// How the numbers of an axis are written. Microseconds get the unit that suits their size.
fn label_of(unit: &str) -> fn(f64) -> String {
    match unit {
        MICROSECONDS => time,
        _ => short,
    }
}

/// Microseconds as people say them.
fn time(micros: f64) -> String {
    match micros {
        micros if micros >= 1e6 => format!("{} s", short(micros / 1e6)),
        micros if micros >= 1e3 => format!("{} ms", short(micros / 1e3)),
        0.0 => "0".to_owned(),
        micros => format!("{} us", short(micros)),
    }
}

/// A number in few characters.
fn short(value: f64) -> String {
    let trimmed = |value: f64, unit: &str| {
        let text = format!("{value:.2}");
        format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match value {
        value if value >= 1e6 => trimmed(value / 1e6, "M"),
        value if value >= 1e4 => trimmed(value / 1e3, "k"),
        value => trimmed(value, ""),
    }
}

/// The unit of an axis of latencies.
pub const MICROSECONDS: &str = "microseconds";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_that_people_say() {
        assert_eq!(
            [1.0, 10.0, 100.0, 1_000.0, 10_000.0, 20.0].map(percentile_label),
            ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", ""]
        );
        assert_eq!(
            [0.5, 120.0, 25_000.0, 2_000_000.0].map(short),
            ["0.5", "120", "25k", "2M"]
        );
        assert_eq!(
            [0.0, 0.5, 200.0, 5_000.0, 45_000.0, 2_000_000.0].map(label_of(MICROSECONDS)),
            ["0", "0.5 us", "200 us", "5 ms", "45 ms", "2 s"]
        );
    }

    #[test]
    fn axes_hold_all_values() {
        assert_eq!(log_bounds([83.0, 4200.0].into_iter()), (50.0, 5000.0));
        assert_eq!(log_bounds([100.0].into_iter()), (100.0, 1000.0));
        assert_eq!(log_bounds(std::iter::empty()), (1.0, 10.0));
    }

    #[test]
    fn a_page_of_odd_data_is_drawn() {
        let one = Curve {
            name: "a & b < c".to_owned(),
            points: vec![(1.0, 0.0)],
        };
        let panels = [
            Panel::Percentiles {
                title: "nothing".to_owned(),
                curves: Vec::new(),
            },
            Panel::Time {
                title: "one".to_owned(),
                unit: "x".to_owned(),
                curves: vec![one.clone(), one],
            },
        ];
        let text = page("title", "subtitle", &panels);
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        assert!(text.contains("a &amp; b &lt; c"));
    }
}
