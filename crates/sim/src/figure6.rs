//! `simulate figure6`: k versus the share of colluding nodes (SEP2P §4.3).

use kith_actors::ktable::{KTable, Network, Region};
use serde::Serialize;

use crate::chart::{Chart, Mark, Series};
use crate::data::Data;
use crate::run::Run;
use crate::scale::{Scale, short};
use crate::{Colluding, Mode, SimError};

/// Which points are computed: each of `nodes` with each of `alphas` and `colluding`.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure6Params {
    /// N, the nodes of the network.
    pub nodes: Vec<u64>,
    /// C, the nodes that one adversary controls.
    pub colluding: Vec<Colluding>,
    /// α, the probability of a controlled region to stay below.
    pub alphas: Vec<f64>,
    /// Which regions are used.
    pub mode: Mode,
}

/// One point of the figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure6Row {
    /// N.
    pub nodes: u64,
    /// α.
    pub alpha: f64,
    /// C.
    pub colluding: u64,
    /// C / N.
    pub share: f64,
    /// The mean of k over all nodes.
    pub mean_k: f64,
    /// The k of every node where there is no k-table: the largest of the table.
    pub without_table: u64,
}

/// Computes the points; nothing is drawn by chance.
pub fn figure6(params: &Figure6Params, run: &Run) -> Result<Data<Figure6Row>, SimError> {
    let points: Vec<_> = (params.nodes.iter())
        .flat_map(|nodes| params.alphas.iter().map(move |alpha| (*nodes, *alpha)))
        .flat_map(|(nodes, alpha)| params.colluding.iter().map(move |one| (nodes, alpha, one.of(nodes))))
        .collect();
    run.plan(points.len() as u64);
    let rows = run.map(points.len() as u64, |at| point(params.mode, points[at as usize]));
    Ok(Data::new(run, rows.into_iter().collect::<Result<_, _>>()?))
}

fn point(mode: Mode, (nodes, alpha, colluding): (u64, f64, u64)) -> Result<Figure6Row, SimError> {
    let network = Network::new(nodes, colluding, alpha)?;
    Ok(match mode {
        Mode::Hardened => row(&KTable::dyadic(network)?),
        Mode::Paper => row(&KTable::exact(network)?),
    })
}

fn row<R: Region>(table: &KTable<R>) -> Figure6Row {
    let network = table.network();
    Figure6Row {
        nodes: network.nodes(),
        alpha: network.alpha(),
        colluding: network.colluding(),
        share: network.colluding() as f64 / network.nodes() as f64,
        mean_k: table.mean_k(),
        without_table: table.k_max(),
    }
}

impl Data<Figure6Row> {
    /// The figure: a curve for each network and α, and one without k-table for the largest network and the least α.
    pub fn chart_of_degrees(&self) -> Chart {
        let mut series: Vec<Series> = Vec::new();
        for row in &self.rows {
            let name = format!("N = {}, α = {:e}", short(row.nodes as f64), row.alpha);
            let mark = Mark::Plain(series.len());
            Series::push(&mut series, &name, mark, (row.share * 100.0, row.mean_k));
        }
        let hardest = self.rows.iter().max_by(|a, b| a.nodes.cmp(&b.nodes).then(b.alpha.total_cmp(&a.alpha)));
        if let Some(hardest) = hardest {
            let (nodes, alpha) = (short(hardest.nodes as f64), hardest.alpha);
            let name = format!("N = {nodes}, α = {alpha:e}, no k-table");
            for row in self.rows.iter().filter(|row| (row.nodes, row.alpha) == (hardest.nodes, hardest.alpha))
            {
                Series::push(
                    &mut series,
                    &name,
                    Mark::Plain(7),
                    (row.share * 100.0, row.without_table as f64),
                );
            }
        }
        Chart {
            title: "k versus C",
            x: ("colluding nodes (%)", Scale::Logarithmic),
            y: ("security degree k", Scale::Linear),
            series,
        }
    }
}
