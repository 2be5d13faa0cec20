//! Plots a figure by connections: a panel for each kind of request, a line for each registry.

use crate::common::cell::Cell;
use crate::{CONNECTIONS, Pair};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::error::Error;
use std::path::Path;

const SIZE: (u32, u32) = (840, 280);

/// A line of a panel: its registry, its colour and its figures.
type Line = (&'static str, RGBColor, fn(&Pair) -> &Cell);

const LINES: [Line; 2] = [
    ("layercache's example", RGBColor(31, 119, 180), |pair| {
        &pair.ours
    }),
    ("docker-registry 2.8", RGBColor(214, 96, 0), |pair| &pair.go),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes an SVG. All panels have the same logarithmic scale.
pub(crate) fn draw(file: &Path, title: &str, pairs: &[Pair], figure: fn(&Cell) -> f64) {
    let drawn = draw_all(file, title, pairs, figure);
    drawn.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

fn draw_all(
    file: &Path,
    title: &str,
    pairs: &[Pair],
    figure: fn(&Cell) -> f64,
) -> Result<(), Box<dyn Error>> {
    let figures = pairs
        .iter()
        .flat_map(|pair| [&pair.ours, &pair.go])
        .map(figure);
    let (least, most) = figures.fold((f64::MAX, f64::MIN), |(least, most), figure| {
        (least.min(figure), most.max(figure))
    });
    // The scale ends at whole powers of ten.
    let scale = 10f64.powf(least.log10().floor())..10f64.powf(most.log10().ceil());

    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    draw_legend(&root)?;
    let root = root.titled(title, ("sans-serif", 17))?;
    let questions = pairs.chunk_by(|one, next| one.question.name == next.question.name);
    let questions: Vec<_> = questions.collect();
    let panels = root.split_evenly((1, questions.len()));
    for (panel, question) in panels.iter().zip(questions) {
        draw_panel(panel, question, figure, scale.clone())?;
    }
    root.present()?;
    Ok(())
}

fn draw_panel(
    panel: &Area<'_>,
    pairs: &[Pair],
    figure: fn(&Cell) -> f64,
    scale: std::ops::Range<f64>,
) -> Result<(), Box<dyn Error>> {
    // The numbers of connections have equal distances, whatever their values.
    let last = CONNECTIONS.len() as f64 - 1.0;
    let mut chart = ChartBuilder::on(panel)
        .caption(pairs[0].question.title, ("sans-serif", 14))
        .margin(8)
        .x_label_area_size(34)
        .y_label_area_size(58)
        .build_cartesian_2d(-0.3..last + 0.3, scale.log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("connections")
        .x_labels(CONNECTIONS.len())
        .x_label_formatter(&|place| {
            let is_whole = place.fract().abs() < 0.01;
            let connections = CONNECTIONS.get(place.round() as usize);
            connections
                .filter(|_| is_whole)
                .map_or(String::new(), usize::to_string)
        })
        .y_label_formatter(&|figure| format!("{figure:.0}"))
        .label_style(("sans-serif", 12))
        .draw()?;

    for (_, colour, of) in LINES {
        let points = pairs.iter().enumerate();
        let points: Vec<_> = points
            .map(|(x, pair)| (x as f64, figure(of(pair))))
            .collect();
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
        chart.draw_series(line)?;
        let dots = points
            .into_iter()
            .map(|point| Circle::new(point, 3, colour.filled()));
        chart.draw_series(dots)?;
    }
    Ok(())
}

/// Draws the legend in the upper right corner, beside the title.
fn draw_legend(root: &Area<'_>) -> Result<(), Box<dyn Error>> {
    for (place, (name, colour, _)) in LINES.into_iter().enumerate() {
        let (x, y) = (SIZE.0 as i32 - 160, 8 + 14 * place as i32);
        root.draw(&PathElement::new(
            [(x, y), (x + 18, y)],
            colour.stroke_width(2),
        ))?;
        root.draw(&Text::new(name, (x + 24, y - 5), ("sans-serif", 12)))?;
    }
    Ok(())
}
