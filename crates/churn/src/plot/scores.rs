//! Plots of scores: how far they moved, and how far they can be believed.

use plotters::prelude::{Circle, Color, PathElement, Rectangle};

use super::{Axes, GRID, NEW, OLD, WIDTH, chart, draw, is_share, percent_tick};
use crate::Calibration;

/// Rows by the change of the score, from −1 to 1 in equal bins; the other axis is logarithmic, since most rows hardly move.
pub(crate) fn shift(bins: &[u64]) -> String {
    let highest = bins.iter().copied().max().unwrap_or(0).max(10);
    draw("Rows by the change of their score", (WIDTH / 2, 520), |area| {
        let axes = Axes {
            x: -1.0..1.0,
            y: -0.2..(highest as f64).log10() + 0.1,
            x_name: "new − old score of the old prediction",
            y_name: "rows (log scale)",
            x_tick: |x| format!("{x:+.1}").replace('-', "−").replace("+0.0", "0"),
            // Powers of ten alone; 3 stands for a half.
            y_tick: |y| if (y - y.round()).abs() < 1e-6 { power_of_ten(*y) } else { String::new() },
            y_ticks: (highest as f64).log10() as usize + 1,
            left: 120,
            right: 44,
        };
        let mut on = chart(area, &axes)?;
        let width = 2.0 / bins.len().max(1) as f64;
        let bars = bins.iter().enumerate().filter(|(_, rows)| **rows > 0).map(|(n, rows)| {
            let left = -1.0 + width * n as f64;
            let corners =
                [(left + width * 0.08, (*rows as f64).log10()), (left + width * 0.92, -0.2)];
            Rectangle::new(corners, NEW.filled())
        });
        on.draw_series(bars)?;
        Ok(())
    })
}

fn power_of_ten(exponent: f64) -> String {
    match exponent.round() as i64 {
        n @ 0..=2 => 10u64.pow(n as u32).to_string(),
        n @ 3..=5 => format!("{}k", 10u64.pow(n as u32 - 3)),
        n => format!("10^{n}"),
    }
}

/// Confidence against the share of right rows, a bin each; on the diagonal a score means what it says.
pub(crate) fn reliability(old: Option<&Calibration>, new: Option<&Calibration>) -> String {
    draw("Reliability of the scores, old and new", (WIDTH / 2, 520), |area| {
        let axes = Axes {
            x: 0.0..1.0,
            y: 0.0..1.0,
            x_name: "confidence of the prediction",
            y_name: "share that is right",
            x_tick: percent_tick,
            y_tick: percent_tick,
            y_ticks: 6,
            left: 140,
            right: 44,
        };
        let mut on = chart(area, &axes)?;
        on.draw_series([PathElement::new([(0.0, 0.0), (1.0, 1.0)], GRID.stroke_width(5))])?;
        for (side, color) in [(old, OLD), (new, NEW)] {
            let dots = side.map(dots).unwrap_or_default();
            on.draw_series([PathElement::new(
                dots.iter().map(|dot| (dot.0, dot.1)).collect::<Vec<_>>(),
                color.stroke_width(4),
            )])?;
            on.draw_series(
                dots.iter().map(|&(x, y, radius)| Circle::new((x, y), radius, color.filled())),
            )?;
        }
        Ok(())
    })
}

/// (mean confidence, share right, radius) of each bin that has rows; the area of a dot grows with its rows.
fn dots(calibration: &Calibration) -> Vec<(f64, f64, i32)> {
    let all: f64 = calibration.bins.iter().map(|bin| bin.0 as f64).sum();
    let dot = |&(rows, confidence, right): &(u64, f64, u64)| {
        let rows = rows as f64;
        (confidence / rows, right as f64 / rows, 6 + (14.0 * (rows / all).sqrt()) as i32)
    };
    let found = calibration.bins.iter().filter(|bin| bin.0 > 0).map(dot);
    found.filter(|(x, y, _)| is_share(*x) && is_share(*y)).collect()
}
