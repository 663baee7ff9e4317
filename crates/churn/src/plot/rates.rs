//! Shares with their intervals on one axis, against the budget's limits and the floor that seeds alone make.

use plotters::prelude::{Circle, Color, PathElement, Text};
use plotters::style::text_anchor::HPos;

use super::{
    Axes, INK, LIMIT, MUTED, NEW, WIDTH, anchored, chart, draw, is_share, percent_tick, upright,
};
use crate::Rate;
use crate::format::percent;

/// One line of the plot.
pub(crate) struct Bar {
    pub name: String,
    pub rate: Rate,
    /// What the budget allows of it.
    pub limit: Option<f64>,
}

/// Each rate as a point with its interval; `floor` is churn between seeds, a line over all of them.
pub(crate) fn rates(bars: &[Bar], floor: Option<f64>) -> String {
    let bars: Vec<&Bar> = bars
        .iter()
        .filter(|bar| {
            is_share(bar.rate.value)
                && is_share(bar.rate.interval.low)
                && is_share(bar.rate.interval.high)
        })
        .collect();
    let floor = floor.filter(|floor| is_share(*floor));
    let limits = || bars.iter().filter_map(|bar| bar.limit).filter(|limit| is_share(*limit));
    let highest = bars
        .iter()
        .map(|bar| bar.rate.interval.high)
        .chain(floor)
        .chain(limits())
        .fold(0.005, f64::max);
    let n = bars.len() as u32;
    draw("Rates of change with their intervals", (WIDTH, 130 + 62 * n), |area| {
        let axes = Axes {
            x: 0.0..highest * 1.12,
            // A line more at the top, for the name of the floor.
            y: -(f64::from(n) - 0.5)..1.0,
            x_name: "share of rows",
            y_name: "",
            x_tick: percent_tick,
            y_tick: |_| String::new(),
            y_ticks: 0,
            left: 330,
            right: 200,
        };
        let on = chart(area, &axes)?;
        if let Some(floor) = floor {
            upright(
                area,
                &on,
                floor,
                &format!("seed floor {}", percent(floor)),
                MUTED,
                HPos::Right,
            )?;
        }
        for (row, bar) in bars.iter().enumerate() {
            let place = |x: f64| on.backend_coord(&(x, -(row as f64)));
            let (low, high) = (place(bar.rate.interval.low), place(bar.rate.interval.high));
            area.draw(&Text::new(bar.name.clone(), (16, low.1), anchored(INK, HPos::Left)))?;
            area.draw(&PathElement::new([low, high], NEW.stroke_width(4)))?;
            for end in [low, high] {
                area.draw(&PathElement::new(
                    [(end.0, end.1 - 9), (end.0, end.1 + 9)],
                    NEW.stroke_width(4),
                ))?;
            }
            area.draw(&Circle::new(place(bar.rate.value), 10, NEW.filled()))?;
            if let Some(limit) = bar.limit.filter(|limit| is_share(*limit)) {
                let (x, y) = place(limit);
                let tick = [(x, y - 25), (x, y + 25)];
                area.draw(&PathElement::new(tick, LIMIT.stroke_width(6)))?;
                // In a column of their own, where no whisker and no floor can cross the letters.
                let name = format!("limit {}", percent(limit));
                let right = (WIDTH as i32 - 8, y);
                area.draw(&Text::new(name, right, anchored(LIMIT, HPos::Right)))?;
            }
        }
        Ok(())
    })
}
