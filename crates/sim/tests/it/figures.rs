//! The figures of SEP2P, from few selections in small networks.

use kith_sansio::Span;
use kith_sim::{
    Colluding, EffectivenessRow, Figure6Params, Figure8Params, Mode, Params, Run, SelectionParams, SimError,
    Strategy, UpkeepRow, figure3, figure6, figure7, figure8, k_table, setup,
};

fn params() -> SelectionParams {
    SelectionParams {
        nodes: 4_000,
        colluding: vec![Colluding::Percent(1.0)],
        actors: 32,
        alpha: 1e-6,
        cache: vec![48],
        selections: 400,
        networks: 4,
        every_setter: false,
        seed: 1,
    }
}

fn by(rows: &[EffectivenessRow], strategy: Strategy) -> &EffectivenessRow {
    rows.iter().find(|row| row.strategy == strategy).unwrap()
}

#[test]
fn data_is_the_same_with_one_thread_and_with_two() {
    let params = SelectionParams { selections: 60, ..params() };
    let figures = |threads| {
        let run = Run::new(threads);
        let effectiveness = figure3(&params, &run).unwrap();
        let costs = setup(&params, &run).unwrap();
        let pictures =
            [effectiveness.chart_of_effectiveness(), costs.chart_of_operations(), costs.chart_of_messages()];
        let pictures = pictures.map(|chart| (chart.svg().unwrap(), chart.png().unwrap()));
        let data = [effectiveness.csv(), costs.csv(), figure7(&params, &run).unwrap().csv()];
        (data, pictures)
    };
    assert_eq!(figures(1), figures(2));
}

#[test]
fn each_node_is_the_setter_once_where_that_is_wished() {
    let params = SelectionParams { nodes: 1_500, networks: 2, every_setter: true, ..params() };
    let figure = |threads| figure7(&params, &Run::new(threads)).unwrap();
    let data = figure(2);
    assert_eq!(data.csv(), figure(1).csv());
    let row = &data.rows[0];
    assert!((2_980..=3_000).contains(&(row.selections + row.refused)), "{row:?}");
    assert!(row.messages_max as f64 > row.messages && row.messages_sd > 0.0, "{row:?}");
    assert!(row.verification_max >= 10 && row.verification_sd < 4.0, "{row:?}");
    let data = figure3(&params, &Run::new(2)).unwrap();
    let sep2p = by(&data.rows, Strategy::Sep2p);
    assert!((2_980..=3_000).contains(&(sep2p.selections + sep2p.refused)), "{sep2p:?}");
}

#[test]
fn a_selection_of_sep2p_is_as_good_as_chance_and_the_others_are_not() {
    let params = SelectionParams { colluding: vec![Colluding::Percent(2.0)], selections: 1_600, ..params() };
    let data = figure3(&params, &Run::new(2)).unwrap();
    let sep2p = by(&data.rows, Strategy::Sep2p);
    assert!(data.is_complete && sep2p.selections > 1_500, "{sep2p:?}");
    let interval = sep2p.effectiveness_low.unwrap()..=sep2p.effectiveness_high.unwrap();
    assert!(interval.contains(&1.0), "{sep2p:?}");
    for other in [Strategy::EsNav, Strategy::EsAv, Strategy::MHash] {
        let row = by(&data.rows, other);
        assert!(row.effectiveness.unwrap() < 0.25, "{row:?}");
    }
}

#[test]
fn where_one_node_is_bad_two_sign_and_no_cache_is_the_whole_network() {
    let params = SelectionParams { colluding: vec![Colluding::Number(1)], ..params() };
    let row = &figure7(&params, &Run::new(2)).unwrap().rows[0];
    assert!(row.cache <= 64.0 && row.verification < 4.5 && row.refused == 0, "{row:?}");
}

#[test]
fn few_colluding_nodes_gain_less_where_actors_are_checked() {
    let params = SelectionParams { colluding: vec![Colluding::Number(4)], selections: 4_000, ..params() };
    let data = figure3(&params, &Run::new(2)).unwrap();
    let gained = |strategy| by(&data.rows, strategy).actors_max;
    assert_eq!(gained(Strategy::EsNav), 32);
    assert!(gained(Strategy::EsAv) <= 4);
}

#[test]
fn a_verifier_of_sep2p_has_two_operations_for_each_builder_and_the_others_those_of_the_actors_too() {
    let data = setup(&params(), &Run::new(2)).unwrap();
    let row = |strategy| data.rows.iter().find(|row| row.strategy == strategy).unwrap();
    let [sep2p, unchecked, checked, hashed] = Strategy::ALL.map(row);
    let table = k_table(Params {
        nodes: 4_000,
        colluding: 40,
        alpha: 1e-6,
        mode: Mode::Paper,
        actors: 32,
        quota: 24,
    })
    .unwrap();
    // The trigger and the setter are none of those that sign, so that about one more node has to be near.
    assert!((sep2p.verification / 2.0 - table.mean_k).abs() < 0.7, "{sep2p:?}, {}", table.mean_k);
    // Now and then a cache holds fewer than 32, and an honest setter names no others.
    assert!((checked.verification - unchecked.verification - 32.0).abs() < 0.1, "{checked:?} {unchecked:?}");
    assert!((checked.verification - hashed.verification - 2.0).abs() < 0.1, "{checked:?} {hashed:?}");
    assert!(sep2p.operations > 2.0 * unchecked.operations && sep2p.operations_latency < sep2p.operations);
    assert!(hashed.messages > 5.0 * unchecked.messages && sep2p.messages > 5.0 * unchecked.messages);
    assert_eq!(unchecked.messages_latency, checked.messages_latency);
}

#[test]
fn selections_move_only_where_the_cache_is_hardly_larger_than_the_list() {
    let params = SelectionParams { cache: vec![36, 128], ..params() };
    let data = figure7(&params, &Run::new(2)).unwrap();
    let [narrow, wide] = [0, 1].map(|at| &data.rows[at]);
    assert!(narrow.relocations > 0.05 && wide.relocations == 0.0, "{narrow:?} {wide:?}");
    assert!(narrow.messages_latency > wide.messages_latency);
}

#[test]
fn total_communication_is_linear_in_the_actors() {
    let messages = |actors: usize| {
        let params = SelectionParams { actors, cache: vec![512], selections: 60, ..params() };
        (actors as f64, figure7(&params, &Run::new(2)).unwrap().rows[0].messages)
    };
    let points = [8, 16, 32, 64, 128, 256].map(messages);
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let sum = |of: fn(f64, f64) -> f64| points.iter().map(|point| of(point.0 - x, point.1 - y)).sum::<f64>();
    let (xx, xy, yy) = (sum(|x, _| x * x), sum(|x, y| x * y), sum(|_, y| y * y));
    // The share of the variance that a line explains.
    assert!(xy * xy / (xx * yy) > 0.99, "{points:?}");
}

#[test]
fn the_degrees_are_those_of_the_k_table() {
    let params = Figure6Params {
        nodes: vec![10_000, 10_000_000],
        colluding: vec![Colluding::Percent(0.001), Colluding::Percent(1.0)],
        alphas: vec![1e-6, 1e-10],
        mode: Mode::Paper,
    };
    let data = figure6(&params, &Run::new(2)).unwrap();
    assert_eq!(data.rows.len(), 8);
    for row in &data.rows {
        let Figure6Params { mode, .. } = params;
        let table = k_table(Params {
            nodes: row.nodes,
            colluding: row.colluding,
            alpha: row.alpha,
            mode,
            actors: 32,
            quota: 24,
        })
        .unwrap();
        assert_eq!((row.mean_k, row.without_table), (table.mean_k, table.kmax));
    }
    assert_eq!(data.csv(), figure6(&params, &Run::new(1)).unwrap().csv());
    assert_eq!(data.rows[0].colluding, 1);
    assert!(data.chart_of_degrees().svg().unwrap().contains("no k-table"));
}

#[test]
fn a_figure_that_is_stopped_has_the_rows_that_it_has_samples_for() {
    let run = Run::new(2);
    run.stop();
    let data = figure3(&params(), &run).unwrap();
    assert_eq!((data.is_complete, data.rows.len()), (false, 0));
    assert_eq!(data.csv(), "");
}

#[test]
fn selections_that_cannot_be_are_refused() {
    let refused = |params| figure3(&params, &Run::new(1)).unwrap_err();
    assert_eq!(refused(SelectionParams { actors: 0, ..params() }), SimError::Actors(0));
    let cache = SimError::Cache { nodes: 4_000, cache: 5_000 };
    assert_eq!(refused(SelectionParams { cache: vec![5_000], ..params() }), cache);
    assert_eq!(refused(SelectionParams { nodes: 1, ..params() }), SimError::Nodes(1));
    let all = SelectionParams { colluding: vec![Colluding::Percent(100.0)], ..params() };
    assert!(matches!(refused(all), SimError::Table(_)));
}

fn upkeep() -> Figure8Params {
    Figure8Params {
        nodes: 4_000,
        colluding: Colluding::Percent(1.0),
        alpha: 1e-6,
        cache: vec![64, 512],
        mtbf: vec![Span::secs(3_600), Span::secs(86_400)],
        modes: vec![Mode::Paper, Mode::Hardened],
        events: 12,
        seed: 1,
    }
}

#[test]
fn keeping_caches_costs_the_same_with_one_thread_and_with_two() {
    let figure = |threads| figure8(&upkeep(), &Run::new(threads)).unwrap();
    let (one, two) = (figure(1), figure(2));
    assert_eq!(one.csv(), two.csv());
    assert_eq!(one.chart_of_upkeep().svg().unwrap(), two.chart_of_upkeep().svg().unwrap());
    let other = figure8(&Figure8Params { seed: 2, ..upkeep() }, &Run::new(2)).unwrap();
    assert_ne!(one.csv(), other.csv());
}

#[test]
fn keeping_a_cache_of_512_takes_less_than_a_signature_in_a_minute_where_nodes_last_a_day() {
    let data = figure8(&upkeep(), &Run::new(2)).unwrap();
    assert_eq!(data.rows.len(), 8);
    let row = |mode, hours, cache| {
        let is_it = |row: &&UpkeepRow| row.mode == mode && row.mtbf_hours == hours && row.cache > cache;
        data.rows.iter().find(is_it).unwrap()
    };
    let daily = row(Mode::Paper, 24.0, 500.0);
    assert!(daily.operations_high.unwrap() < 1.0, "{daily:?}");
    let hourly = row(Mode::Paper, 1.0, 500.0);
    assert!((hourly.operations / daily.operations - 24.0).abs() < 1e-9);
    let smaller = row(Mode::Paper, 24.0, 60.0);
    assert!(smaller.operations < daily.operations / 3.0, "{smaller:?}");
    assert!(row(Mode::Hardened, 24.0, 400.0).operations > daily.operations);
}

#[test]
fn regions_that_no_member_could_keep_are_left_out() {
    let params = Figure8Params { nodes: 20_000, cache: vec![64, 8_192], events: 1, ..upkeep() };
    let rows = figure8(&params, &Run::new(2)).unwrap().rows;
    let of = |mode| rows.iter().filter(move |row| row.mode == mode).count();
    assert_eq!((of(Mode::Paper), of(Mode::Hardened)), (4, 2));
    let never = Figure8Params { mtbf: vec![Span::ZERO], ..upkeep() };
    assert_eq!(figure8(&never, &Run::new(1)).unwrap_err(), SimError::NoTime);
}
