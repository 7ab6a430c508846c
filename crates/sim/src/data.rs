//! What a simulation gives.

use serde::Serialize;

use crate::run::Run;

/// The rows of a simulation, one for each point that was simulated.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Data<R> {
    /// Whether the simulation came to its end; otherwise it was stopped, and what is here is true of fewer samples.
    #[serde(rename = "complete")]
    pub is_complete: bool,
    /// The points, those without a sample left out.
    pub rows: Vec<R>,
}

impl<R> Data<R> {
    pub(crate) fn new(run: &Run, rows: Vec<R>) -> Data<R> {
        Data { is_complete: !run.is_stopped(), rows }
    }
}

impl<R: Serialize> Data<R> {
    /// The rows as CSV, with a line of their names above them (RFC 4180, lines end with LF).
    pub fn csv(&self) -> String {
        let mut csv = csv::Writer::from_writer(Vec::new());
        let _memory_takes_all = self.rows.iter().try_for_each(|row| csv.serialize(row));
        let bytes = csv.into_inner().unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    }
}
