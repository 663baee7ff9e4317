//! What the teachers say on the rows of a run: tables of logits keyed by row id → one number a row and class of the student.
//!
//! Refuses rows that a table lacks, and teachers that know different classes. Never asks a model: a table is made once, in
//! evaluation mode and from the raw texts, and serves every run and every point of a sweep.

mod fingerprint;
mod neighbours;
mod scored;
mod soft_labels;
mod table;

use std::collections::HashMap;

use lowchurn_data::{align_teacher, entries_for};

use crate::loss::term::{log_softmax, log_sum_exp};
use crate::{Error, Result};

pub(crate) use neighbours::in_place_of;

pub use fingerprint::{Fingerprint, teacher_key};
pub use soft_labels::write_soft_labels;
pub use table::{Scoring, Table, table_file_name};

/// How several teachers are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// log of the mean of softmax(z): as logits these give the mean of the probabilities back, at T = 1.
    Probabilities,
    /// The mean of z: softmax of it is the normalised geometric mean of the probabilities.
    Logits,
}

/// The teacher's logits for the rows of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Teacher {
    /// (N·K) in the order of the student's labels; row i belongs to row i of the run. 0 where the class isn't known.
    pub logits: Vec<f32>,
    /// (K) Classes that the teacher knows; the others are to be masked out of its term.
    pub known: Vec<bool>,
    /// Lines for people and for the report.
    pub said: Vec<String>,
}

impl Teacher {
    /// Picks the run's rows out of every table by their ids, and brings the classes into the student's order. `map` holds
    /// (TEACHER, STUDENT) names, and may hold others. A single table is taken as it is, whatever `combine` says.
    pub fn of(
        tables: &[Table],
        row_ids: &[String],
        student_labels: &[String],
        map: &[(String, String)],
        combine: Combine,
    ) -> Result<Teacher> {
        let columns = columns(tables, student_labels, map)?;
        let Some(first) = columns.first() else { return Err(Error::NoTeacher) };
        let known: Vec<bool> = first.iter().map(Option::is_some).collect();
        let places =
            tables.iter().map(|table| places(table, row_ids)).collect::<Result<Vec<_>>>()?;
        let classes = student_labels.len();
        let mut logits = vec![0f32; row_ids.len() * classes]; // (N·K)
        for (row, out) in logits.chunks_exact_mut(classes.max(1)).enumerate() {
            let said: Vec<Vec<f64>> = tables
                .iter()
                .zip(&columns)
                .zip(&places)
                .map(|((table, columns), places)| picked(table.logits_of(places[row]), columns))
                .collect(); // one of (K_known,) a teacher
            let combined = match (&said[..], combine) {
                ([only], _) => only.clone(),
                (_, Combine::Logits) => mean(&said),
                (_, Combine::Probabilities) => log_of_mean_probabilities(&said),
            };
            let slots = out.iter_mut().zip(&known).filter(|(_, is_known)| **is_known);
            // A logit near the end of f32's range must not become infinite on the way.
            slots.zip(combined).for_each(|((slot, _), z)| {
                *slot = z.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32;
            });
        }
        let said = said(tables, student_labels, &known, combine);
        Ok(Teacher { logits, known, said })
    }

    /// (K,) with 0 where the class isn't known.
    pub fn logits_of(&self, row: usize) -> &[f32] {
        &self.logits[row * self.known.len()..][..self.known.len()]
    }

    /// The known class of the largest logit; the first of equals.
    pub fn predicted(&self, row: usize) -> u32 {
        let logits = self.logits_of(row);
        let known = (0..logits.len()).filter(|&class| self.known[class]);
        let best = known.reduce(|a, b| if logits[b] > logits[a] { b } else { a });
        best.unwrap_or(0) as u32
    }

    /// softmax(z/T) over the known classes, 0 on the others. (K,)
    pub fn probabilities(&self, row: usize, temperature: f64) -> Vec<f64> {
        let logits = self.logits_of(row).iter().zip(&self.known);
        let scaled: Vec<f64> = logits
            .map(|(&z, &is_known)| match is_known {
                true => f64::from(z) / temperature,
                false => f64::NEG_INFINITY,
            })
            .collect();
        log_softmax(&scaled, 1.0).iter().map(|x| x.exp()).collect()
    }
}

/// For each table the teacher's column of each class of the student (K), the same classes known to all.
fn columns(
    tables: &[Table],
    student_labels: &[String],
    map: &[(String, String)],
) -> Result<Vec<Vec<Option<u32>>>> {
    let mut all: Vec<Vec<Option<u32>>> = Vec::new();
    for table in tables {
        // The map may serve data and other teachers too. A misspelt entry isn't lost: the class it was for has no partner.
        let own = entries_for(map, &table.labels);
        all.push(align_teacher(&table.labels, student_labels, &own)?);
    }
    let names = |at: usize| -> Vec<String> {
        let known = student_labels.iter().zip(&all[at]).filter(|(_, column)| column.is_some());
        known.map(|(label, _)| label.clone()).collect()
    };
    for at in 1..all.len() {
        if names(at) != names(0) {
            let name = |at: usize| tables[at].teacher.name.clone();
            return Err(Error::TeacherClasses {
                first: name(0),
                first_knows: names(0),
                second: name(at),
                second_knows: names(at),
            });
        }
    }
    Ok(all)
}

/// Where each row of the run is in the table.
fn places(table: &Table, row_ids: &[String]) -> Result<Vec<usize>> {
    let ids = table.ids.iter().enumerate();
    let at: HashMap<&str, usize> = ids.map(|(at, id)| (id.as_str(), at)).collect();
    let place = |id: &String| {
        let lacks = || Error::NotScored { id: id.clone(), teacher: table.teacher.name.clone() };
        at.get(id.as_str()).copied().ok_or_else(lacks)
    };
    row_ids.iter().map(place).collect()
}

/// The logits of the known classes, in the student's order.
fn picked(logits: &[f32], columns: &[Option<u32>]) -> Vec<f64> {
    columns.iter().flatten().map(|&column| f64::from(logits[column as usize])).collect()
}

fn mean(rows: &[Vec<f64>]) -> Vec<f64> {
    let of = |class: usize| rows.iter().map(|row| row[class]).sum::<f64>() / rows.len() as f64;
    (0..rows[0].len()).map(of).collect()
}

fn log_of_mean_probabilities(rows: &[Vec<f64>]) -> Vec<f64> {
    let log_p: Vec<Vec<f64>> = rows.iter().map(|row| log_softmax(row, 1.0)).collect();
    let of =
        |class: usize| log_sum_exp(log_p.iter().map(|row| row[class])) - (rows.len() as f64).ln();
    (0..rows[0].len()).map(of).collect()
}

fn said(
    tables: &[Table],
    student_labels: &[String],
    known: &[bool],
    combine: Combine,
) -> Vec<String> {
    let names: Vec<&str> = tables.iter().map(|table| table.teacher.name.as_str()).collect();
    let names = names.join(", ");
    let mut lines = vec![match (tables.len(), combine) {
        (1, _) => format!("scores of {names}"),
        (_, Combine::Probabilities) => format!("mean of the probabilities of {names}"),
        (_, Combine::Logits) => format!("mean of the logits of {names}"),
    }];
    let unknown = student_labels.iter().zip(known).filter(|(_, is_known)| !**is_known);
    lines.extend(
        unknown.map(|(label, _)| {
            format!("{label}: no class of the teacher's, masked out of its term")
        }),
    );
    lines
}
