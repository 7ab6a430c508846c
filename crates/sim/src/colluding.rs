/// How many nodes collude.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Colluding {
    /// So many.
    Number(u64),
    /// So many of a hundred, one at least.
    Percent(f64),
}

impl Colluding {
    /// Their number among `nodes`.
    pub fn of(self, nodes: u64) -> u64 {
        match self {
            Colluding::Number(number) => number,
            Colluding::Percent(percent) => ((nodes as f64 * percent / 100.0).round() as u64).max(1),
        }
    }
}
