//! Plots as inline SVG, drawn by `plotters`. What is drawn is numbers and names; which of them, the callers say.
//!
//! Coordinates of `plotters` are whole units, so a plot is drawn at twice the size at which it is shown.
//! Colours are written as those of the light theme, and the style sheet turns each into a variable by its value
//! (`[fill="#1B1F24"]`), so that one drawing serves light, dark and print. A test holds that it knows all of them.

use std::error::Error;
use std::ops::Range;

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    Cartesian2d, Circle, Color, DrawingArea, IntoDrawingArea, IntoFont, PathElement, Polygon,
    RGBColor, SVGBackend, Text, TextStyle,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Point;
use crate::format::escape;

mod deviation;
mod frontier;
mod rates;
mod scores;

pub(crate) use deviation::{cosines, deviation, ways};
pub(crate) use frontier::{frontier, series_names};
pub(crate) use rates::{Bar, rates};
pub(crate) use scores::{reliability, shift};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Drawn = Result<(), Box<dyn Error>>;

pub(crate) const INK: RGBColor = RGBColor(0x1b, 0x1f, 0x24);
pub(crate) const MUTED: RGBColor = RGBColor(0x5c, 0x64, 0x70);
pub(crate) const GRID: RGBColor = RGBColor(0xe1, 0xe4, 0xe8);
pub(crate) const OLD: RGBColor = RGBColor(0x8a, 0x91, 0x9c);
pub(crate) const NEW: RGBColor = RGBColor(0x0b, 0x5c, 0xad);
pub(crate) const LIMIT: RGBColor = RGBColor(0xb3, 0x3a, 0x1e);
/// Okabe and Ito's colours that show on white, told apart with every kind of colour blindness.
pub(crate) const SERIES: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x6f, 0x4e, 0x37),
];

const WIDTH: u32 = 1520;
const LETTERS: u32 = 31;
/// Width of a letter, about: there are no fonts here to measure with.
const LETTER_WIDTH: i32 = 14;

/// One `<svg>` of its own size; `name` is what a screen reader says.
fn draw(name: &str, size: (u32, u32), onto: impl FnOnce(&Area) -> Drawn) -> String {
    let mut svg = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        onto(&area).and_then(|()| Ok(area.present()?))
    };
    if let Err(error) = drawn {
        return format!(
            "<p class=\"note\">{} can't be drawn: {}</p>",
            escape(name),
            escape(&error.to_string())
        );
    }
    // The head names a namespace that HTML doesn't need, and a fixed size.
    let body = svg.split_once('>').map_or("", |(_, body)| body);
    let (width, height) = size;
    format!(
        "<svg class=\"plot\" role=\"img\" aria-label=\"{}\" viewBox=\"0 0 {width} {height}\">{body}",
        escape(name)
    )
}

/// Axes with names; the grid is light, and numbers on both are shares shown as percent.
struct Axes<'a> {
    x: Range<f64>,
    y: Range<f64>,
    x_name: &'a str,
    y_name: &'a str,
    x_tick: fn(&f64) -> String,
    y_tick: fn(&f64) -> String,
    y_ticks: usize,
    /// Room for names on the left and on the right.
    left: u32,
    right: u32,
}

fn chart<'a, 'b>(area: &'a Area<'b>, axes: &Axes) -> Result<Chart<'a, 'b>, Box<dyn Error>> {
    let mut chart = ChartBuilder::on(area)
        .margin_top(16)
        .margin_right(axes.right)
        .margin_left(8)
        .x_label_area_size(84)
        .y_label_area_size(axes.left)
        .build_cartesian_2d(axes.x.clone(), axes.y.clone())?;
    let mut mesh = chart.configure_mesh();
    mesh.x_labels(9).x_desc(axes.x_name).x_label_formatter(&axes.x_tick);
    mesh.y_labels(axes.y_ticks).y_desc(axes.y_name).y_label_formatter(&axes.y_tick);
    mesh.bold_line_style(GRID.stroke_width(2)).light_line_style(GRID.mix(0.0));
    mesh.axis_style(MUTED.stroke_width(2));
    mesh.label_style(letters(MUTED)).axis_desc_style(letters(MUTED));
    if axes.y_ticks == 0 {
        mesh.disable_y_mesh().disable_y_axis();
    }
    mesh.draw()?;
    Ok(chart)
}

fn letters(color: RGBColor) -> TextStyle<'static> {
    ("sans-serif", LETTERS).into_font().color(&color)
}

fn anchored(color: RGBColor, h: HPos) -> TextStyle<'static> {
    letters(color).pos(Pos::new(h, VPos::Center))
}

/// 0.025 → `2.5%`.
fn percent_tick(share: &f64) -> String {
    let digits = format!("{:.2}", share * 100.0);
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    // A sum of steps may end beside zero.
    format!("{}%", if digits == "-0" { "0" } else { digits }).replace('-', "−")
}

/// A range that holds all values with air around them, also where they are one.
fn around(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values
        .filter(|value| is_share(*value))
        .fold((1.0f64, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return 0.0..1.0;
    }
    let air = ((high - low) * 0.08).max(0.002);
    low - air..high + air
}

/// What can be drawn: a report from outside may hold anything.
fn is_share(value: f64) -> bool {
    (-1.0..=1.0).contains(&value)
}

/// The mark of a series: colour and shape go together, so that neither is needed alone.
fn mark(area: &Area, series: usize, at: (i32, i32)) -> Drawn {
    let color = SERIES[series % SERIES.len()];
    let (x, y) = at;
    let polygon = |corners: &[(i32, i32)]| {
        Polygon::new(
            corners.iter().map(|(a, b)| (x + a, y + b)).collect::<Vec<_>>(),
            color.filled(),
        )
    };
    match series % 5 {
        0 => area.draw(&Circle::new(at, 11, color.filled()))?,
        1 => area.draw(&polygon(&[(-10, -10), (10, -10), (10, 10), (-10, 10)]))?,
        2 => area.draw(&polygon(&[(0, -13), (12, 9), (-12, 9)]))?,
        3 => area.draw(&polygon(&[(0, -14), (14, 0), (0, 14), (-14, 0)]))?,
        _ => area.draw(&polygon(&[(0, 13), (12, -9), (-12, -9)]))?,
    }
    Ok(())
}

/// The frontier as an SVG file of its own, on white, with a legend below; the seed floor as a line where it is known.
pub fn frontier_svg(points: &[Point], seed_floor: Option<f64>) -> String {
    const COLUMNS: usize = 3;
    const LINE: usize = 48;
    let inline = frontier(points, seed_floor, None);
    let names = series_names(points);
    let mut legend = String::new();
    for (series, name) in names.iter().enumerate() {
        let (x, y) = (150 + series % COLUMNS * 450, 880 + series / COLUMNS * LINE);
        let place = format!(r#"<svg x="{x}" y="{y}" width="32" height="32""#);
        legend += &swatch(series).replacen("<svg", &place, 1);
        let (x, y, name) = (x + 46, y + 26, escape(name));
        legend += &format!(
            r##"<text x="{x}" y="{y}" font-size="{LETTERS}" fill="#1B1F24">{name}</text>"##
        );
    }
    let height = 890 + names.len().div_ceil(COLUMNS) * LINE;
    let (_, body) = inline.split_once('>').unwrap_or(("", &inline));
    let body = body.strip_suffix("</svg>\n").or(body.strip_suffix("</svg>")).unwrap_or(body);
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" viewBox="0 0 {WIDTH} {height}"><rect width="100%" height="100%" fill="#FFFFFF"/>{body}{legend}</svg>
"##
    )
}

/// The mark alone, for a legend.
pub(crate) fn swatch(series: usize) -> String {
    draw("", (32, 32), |area| mark(area, series, (16, 16)))
        .replace("role=\"img\" aria-label=\"\"", "aria-hidden=\"true\"")
}

/// An upright line over the whole height, with its name at the top: on the wished side, if there is room.
fn upright(area: &Area, chart: &Chart, x: f64, name: &str, color: RGBColor, wished: HPos) -> Drawn {
    let pixels = chart.plotting_area().get_pixel_range();
    let at = chart.backend_coord(&(x, 0.0)).0;
    if !pixels.0.contains(&at) {
        return Ok(());
    }
    let (top, bottom) = (pixels.1.start, pixels.1.end);
    // In strokes, because an SVG of plotters has no dashes.
    for start in (top..bottom).step_by(18) {
        area.draw(&PathElement::new(
            [(at, start), (at, (start + 10).min(bottom))],
            color.stroke_width(3),
        ))?;
    }
    let width = name.chars().count() as i32 * LETTER_WIDTH;
    let has_room = [at - 14 - width > pixels.0.start, at + 14 + width < pixels.0.end];
    let is_right = match wished {
        HPos::Left => !has_room[0],
        _ => has_room[1],
    };
    let (x, side) = if is_right { (at + 12, HPos::Left) } else { (at - 12, HPos::Right) };
    area.draw(&Text::new(name.to_string(), (x, top + 18), anchored(color, side)))?;
    Ok(())
}
