//! What is known of how a student was trained, as far as advice depends on it.

/// Plain words and numbers: nothing here knows a method. What isn't known is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Training {
    pub taught: Taught,
    /// Passes over the rows.
    pub student_epochs: Option<u32>,
    pub teacher_epochs: Option<u32>,
}

/// What the student's loss had of a teacher.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Taught {
    #[default]
    Unknown,
    /// Nothing: it learnt by the method of this name, which follows no teacher.
    Alone(String),
    By {
        /// The teacher's weight in the last update; `None` where the run itself decided it.
        last_lambda: Option<f64>,
        temperature: Temperature,
    },
}

/// Whether T is free to be chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum Temperature {
    Free,
    /// What stands against it, as a clause: `method anchor has no T`.
    Held(String),
}
