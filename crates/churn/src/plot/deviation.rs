//! The scatter of a teacher's confidence against its student's, with the fitted line and y = x.

use plotters::prelude::{Circle, Color, PathElement, Rectangle, Text};
use plotters::style::text_anchor::HPos;

use super::{Axes, GRID, LIMIT, MUTED, NEW, OLD, WIDTH, anchored, chart, draw};
use crate::{Layer, Part};

/// φ beyond this is a broken report's; a model's logits stay far below.
const FARTHEST: f64 = 1e4;

/// A dot a row. Both axes have one scale, so that y = x is what it is.
pub(crate) fn deviation(part: &Part) -> String {
    let points: Vec<[f64; 2]> = part
        .points
        .iter()
        .copied()
        .filter(|point| point.iter().all(|x| x.abs() < FARTHEST))
        .collect();
    let (low, high) = points
        .iter()
        .flatten()
        .fold((0.0f64, 1.0f64), |(low, high), x| (low.min(*x), high.max(*x)));
    let air = (high - low) * 0.04;
    let (low, high) = (low - air, high + air);
    draw("Confidence of the student against the teacher's", (WIDTH / 2, 700), |area| {
        let axes = Axes {
            x: low..high,
            y: low..high,
            x_name: "teacher: log(p / (1 − p)) of its prediction",
            y_name: "student: the same class",
            x_tick: tick,
            y_tick: tick,
            y_ticks: 9,
            left: 110,
            right: 44,
        };
        let mut on = chart(area, &axes)?;
        on.draw_series(
            points.iter().map(|p| Circle::new((p[0], p[1]), 4, NEW.mix(0.45).filled())),
        )?;
        let ends = |slope: f64, intercept: f64| {
            // As far as it stays inside: what leaves the axes would be drawn over them.
            let xs = (0..=60).map(|at| low + (high - low) * f64::from(at) / 60.0);
            let on = xs.map(|x| (x, intercept + slope * x));
            on.filter(|(_, y)| (low..=high).contains(y)).collect::<Vec<_>>()
        };
        on.draw_series([PathElement::new(ends(1.0, 0.0), GRID.stroke_width(5))])?;
        if let Some(line) = part.all.line.filter(|line| line.slope.abs() < FARTHEST) {
            let color = LIMIT.stroke_width(4);
            on.draw_series([PathElement::new(ends(line.slope, line.intercept), color)])?;
        }
        let name = |text: &str, at: (i32, i32), color| {
            area.draw(&Text::new(text.to_string(), at, anchored(color, HPos::Left)))
        };
        name("fitted line", (140, 36), LIMIT)?;
        name("y = x", (140, 74), MUTED)?;
        Ok(())
    })
}

/// Two runs by checkpoint: x along the first direction, y along the second.
pub(crate) fn ways(layer: &Layer) -> String {
    let way = |run: &[Vec<f64>]| -> Vec<(f64, f64)> {
        let points = run.iter().filter_map(|c| Some((*c.first()?, *c.get(1)?)));
        points.filter(|(x, y)| x.abs() < FARTHEST && y.abs() < FARTHEST).collect()
    };
    let (teacher, student) = (way(&layer.teacher), way(&layer.student));
    let all = || teacher.iter().chain(&student);
    let right = all().map(|p| p.0).fold(1e-6, f64::max) * 1.06;
    let top = all().map(|p| p.1).fold(1e-6, f64::max) * 1.06;
    draw("Ways of teacher and student along two directions", (WIDTH / 2, 560), |area| {
        let axes = Axes {
            x: 0.0..right,
            y: 0.0..top,
            x_name: "along the first direction",
            y_name: "along the second",
            x_tick: |x| format!("{x:.3}"),
            y_tick: |y| format!("{y:.3}"),
            y_ticks: 6,
            left: 140,
            right: 44,
        };
        let mut on = chart(area, &axes)?;
        for (points, color) in [(&teacher, OLD), (&student, NEW)] {
            on.draw_series([PathElement::new(points.clone(), color.stroke_width(4))])?;
            on.draw_series(points.iter().map(|p| Circle::new(*p, 7, color.filled())))?;
        }
        Ok(())
    })
}

/// Batches by a cosine, from −1 to 1 in equal bins: two kinds of it, side by side in each bin.
pub(crate) fn cosines(of_labels: &[f64], of_own: &[f64]) -> String {
    let (labels, own) = (binned(of_labels), binned(of_own));
    let highest = labels.iter().chain(&own).copied().max().unwrap_or(0).max(1) as f64;
    draw("Batches by the cosine between two gradients", (WIDTH / 2, 520), |area| {
        let axes = Axes {
            x: -1.0..1.0,
            y: 0.0..highest * 1.06,
            x_name: "cosine",
            y_name: "batches",
            x_tick: tick,
            y_tick: tick,
            y_ticks: 6,
            left: 120,
            right: 44,
        };
        let mut on = chart(area, &axes)?;
        for (bins, color, from) in [(labels, NEW, 0.08), (own, OLD, 0.54)] {
            let filled = bins.iter().enumerate().filter(|(_, batches)| **batches > 0);
            on.draw_series(filled.map(|(bin, batches)| {
                let left = -1.0 + BIN * (bin as f64 + from);
                Rectangle::new([(left, *batches as f64), (left + BIN * 0.38, 0.0)], color.filled())
            }))?;
        }
        Ok(())
    })
}

const COSINE_BINS: usize = 20;
const BIN: f64 = 2.0 / COSINE_BINS as f64;

fn binned(cosines: &[f64]) -> [u64; COSINE_BINS] {
    let mut bins = [0; COSINE_BINS];
    // Rounding may leave a cosine beyond 1.
    for cosine in cosines.iter().filter(|cosine| cosine.is_finite()) {
        let bin = ((cosine.clamp(-1.0, 1.0) + 1.0) / BIN) as usize;
        bins[bin.min(COSINE_BINS - 1)] += 1;
    }
    bins
}

fn tick(x: &f64) -> String {
    let digits = format!("{x:.1}");
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    if digits == "-0" { "0".into() } else { digits.replace('-', "−") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cosine_has_a_bin() {
        let bins = binned(&[-1.0, -0.95, 0.0, 0.99, 1.0, 1.0 + 1e-9, f64::NAN]);
        let found: Vec<(usize, u64)> =
            bins.into_iter().enumerate().filter(|(_, n)| *n > 0).collect();
        assert_eq!(found, [(0, 2), (10, 1), (19, 3)]);
    }
}
