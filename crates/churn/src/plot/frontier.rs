//! Every method and baseline on the axes churn and accuracy, with standard errors and the frontier.

use plotters::prelude::{Color, PathElement, Text};
use plotters::style::text_anchor::HPos;

use super::{
    Axes, INK, LETTER_WIDTH, LIMIT, MUTED, SERIES, WIDTH, anchored, around, chart, draw, is_share,
    mark, percent_tick, upright,
};
use crate::format::{cut, percent};
use crate::{Mean, Point};

/// Methods with their start, in the order of their first point: one series each.
pub(crate) fn series_names(points: &[Point]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for point in points {
        let name = series_name(point);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

pub(crate) fn series_name(point: &Point) -> String {
    if point.init.is_empty() {
        point.method.clone()
    } else {
        format!("{}, {}", point.method, point.init)
    }
}

/// Left and up is better. `floor` is churn between seeds, `limit` the budget's.
pub(crate) fn frontier(points: &[Point], floor: Option<f64>, limit: Option<f64>) -> String {
    let names = series_names(points);
    let points: Vec<(usize, &Point)> = points
        .iter()
        .filter(|point| is_share(point.churn.value) && is_share(point.accuracy.value))
        .filter_map(|point| {
            Some((names.iter().position(|name| *name == series_name(point))?, point))
        })
        .collect();
    let ends = |mean: &Mean| {
        let error = mean.standard_error.unwrap_or(0.0);
        [mean.value - error, mean.value + error]
    };
    let lines = [floor, limit].into_iter().flatten().filter(|line| is_share(*line));
    let x = around(points.iter().flat_map(|(_, point)| ends(&point.churn)).chain(lines));
    let y = around(points.iter().flat_map(|(_, point)| ends(&point.accuracy)));
    draw("Accuracy against churn, a mark a setting", (WIDTH, 860), |area| {
        let axes = Axes {
            x: x.start.max(-0.002)..x.end,
            y,
            x_name: "churn: share of rows whose prediction changed (lower is calmer)",
            y_name: "accuracy (higher is better)",
            x_tick: percent_tick,
            y_tick: percent_tick,
            y_ticks: 8,
            left: 150,
            right: 28,
        };
        let on = chart(area, &axes)?;
        let place = |x: f64, y: f64| on.backend_coord(&(x, y));
        // The two names stand on the outer sides of their lines, where neither line crosses the other's name.
        let (floor_side, limit_side) = match (floor, limit) {
            (Some(floor), Some(limit)) if floor < limit => (HPos::Left, HPos::Right),
            _ => (HPos::Right, HPos::Left),
        };
        if let Some(floor) = floor {
            upright(
                area,
                &on,
                floor,
                &format!("seed floor {}", percent(floor)),
                MUTED,
                floor_side,
            )?;
        }
        if let Some(limit) = limit {
            upright(area, &on, limit, &format!("budget {}", percent(limit)), LIMIT, limit_side)?;
        }
        area.draw(&PathElement::new(on_frontier(&points, place), INK.mix(0.22).stroke_width(14)))?;
        for series in 0..names.len() {
            let own = points.iter().filter(|(of, _)| *of == series);
            let path: Vec<_> =
                own.map(|(_, point)| place(point.churn.value, point.accuracy.value)).collect();
            area.draw(&PathElement::new(
                path,
                SERIES[series % SERIES.len()].mix(0.45).stroke_width(3),
            ))?;
        }
        let mut taken = Vec::new();
        for (series, point) in &points {
            let (churn, accuracy) = (point.churn.value, point.accuracy.value);
            let color = SERIES[series % SERIES.len()].mix(0.8).stroke_width(3);
            let [left, right] = ends(&point.churn).map(|churn| place(churn, accuracy));
            area.draw(&PathElement::new([left, right], color))?;
            let [bottom, top] = ends(&point.accuracy).map(|accuracy| place(churn, accuracy));
            area.draw(&PathElement::new([bottom, top], color))?;
            let at = place(churn, accuracy);
            mark(area, *series, at)?;
            let stem = Space { left: top.0 - 2, top: top.1, right: top.0 + 2, bottom: bottom.1 };
            let level = Space { left: left.0, top: left.1 - 2, right: right.0, bottom: left.1 + 2 };
            taken.extend([stem, level]);
            taken.push(Space {
                left: at.0 - 14,
                top: at.1 - 14,
                right: at.0 + 14,
                bottom: at.1 + 14,
            });
        }
        let pixels = on.plotting_area().get_pixel_range();
        for (series, point) in &points {
            let name = if point.setting.is_empty() { &names[*series] } else { &point.setting };
            let name = cut(name, 26);
            let at = place(point.churn.value, point.accuracy.value);
            // A name that finds no room is left out: the table below has all of them.
            if let Some(space) = room(&name, at, &taken, &pixels) {
                let text = (space.left, (space.top + space.bottom) / 2);
                area.draw(&Text::new(name, text, anchored(INK, HPos::Left)))?;
                taken.push(space);
            }
        }
        Ok(())
    })
}

/// The corners of the frontier, by churn.
fn on_frontier(
    points: &[(usize, &Point)],
    place: impl Fn(f64, f64) -> (i32, i32),
) -> Vec<(i32, i32)> {
    let mut best: Vec<&Point> =
        points.iter().map(|(_, point)| *point).filter(|point| point.is_on_frontier).collect();
    best.sort_by(|a, b| a.churn.value.total_cmp(&b.churn.value));
    best.iter().map(|point| place(point.churn.value, point.accuracy.value)).collect()
}

#[derive(Clone, Copy)]
struct Space {
    left: i32,
    top: i32,
    right: i32,
    bottom: i32,
}

/// A place for a name beside its mark that nothing else takes: right, left, above, below, and the corners.
fn room(
    name: &str,
    at: (i32, i32),
    taken: &[Space],
    pixels: &(std::ops::Range<i32>, std::ops::Range<i32>),
) -> Option<Space> {
    let width = name.chars().count() as i32 * LETTER_WIDTH;
    let (right, left, middle) = (at.0 + 20, at.0 - 20 - width, at.0 - width / 2);
    let places = [
        (right, at.1 - 15),
        (left, at.1 - 15),
        (middle, at.1 - 48),
        (middle, at.1 + 18),
        (right, at.1 - 38),
        (right, at.1 + 8),
        (left, at.1 - 38),
        (left, at.1 + 8),
    ];
    let spaces =
        places.map(|(left, top)| Space { left, top, right: left + width, bottom: top + 30 });
    let is_free = |space: &Space| {
        let is_inside = space.left >= pixels.0.start
            && space.right <= pixels.0.end + 20
            && space.top >= pixels.1.start
            && space.bottom <= pixels.1.end;
        let hits = |other: &Space| {
            space.left < other.right
                && other.left < space.right
                && space.top < other.bottom
                && other.top < space.bottom
        };
        is_inside && !taken.iter().any(hits)
    };
    spaces.into_iter().find(is_free)
}
