//! Attacks on selections, few of each in a small network.

use kith_sim::{Attack, AttackParams, AttackRow, Data, Mode, Run, SimError, attack};

fn params() -> AttackParams {
    AttackParams {
        attacks: Attack::ALL.to_vec(),
        modes: vec![Mode::Paper, Mode::Hardened],
        nodes: 2_000,
        colluding: 40,
        actors: 32,
        alpha: 1e-6,
        cache: None,
        quota: 3,
        attempts: 40,
        seed: 1,
    }
}

fn played(params: &AttackParams, threads: usize) -> Data<AttackRow> {
    attack(params, &Run::new(threads)).unwrap()
}

/// As many as it takes to tell the paper's protocol from chance.
fn enough(one: Attack) -> AttackParams {
    let attempts = match one {
        Attack::Cache | Attack::Dead => 300,
        Attack::CoLocated => 100,
        Attack::Subset | Attack::RetrySetter => 20,
        _ => 60,
    };
    let colluding = if one == Attack::Cache { 200 } else { 40 };
    AttackParams { attacks: vec![one], modes: vec![Mode::Paper], colluding, attempts, ..params() }
}

#[test]
fn each_attack_beats_chance_in_paper_mode() {
    for one in Attack::ALL {
        let rows = played(&enough(one), 2).rows;
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((row.attack, row.by), (one.name(), one.by()));
        assert!(row.low.unwrap() > row.quota_bias.unwrap_or(row.chance), "{row:?}");
        assert!(row.accepted > 0.5, "{row:?}");
    }
}

#[test]
fn no_attack_beats_chance_in_hardened_mode_the_bias_of_the_quota_excepted() {
    let data = played(&AttackParams { modes: vec![Mode::Hardened], attempts: 80, ..params() }, 2);
    assert!(data.is_complete && data.rows.len() == Attack::ALL.len());
    for row in &data.rows {
        assert!(row.low.unwrap() <= row.quota_bias.unwrap_or(row.chance), "{row:?}");
        // Keys that are beside each other deviate from nothing.
        assert_eq!(row.accepted, f64::from(u8::from(row.attack == "co-located")), "{row:?}");
        assert_eq!(row.refused, 0, "{row:?}");
    }
}

#[test]
fn data_is_the_same_with_one_thread_and_with_two_and_another_with_another_seed() {
    let few = AttackParams { nodes: 800, colluding: 16, attempts: 4, quota: 2, ..params() };
    let one = played(&few, 1).csv();
    assert_eq!(one, played(&few, 2).csv());
    assert_ne!(one, played(&AttackParams { seed: 2, ..few }, 2).csv());
}

#[test]
fn an_attack_gives_the_same_alone_and_among_others() {
    let few = AttackParams { modes: vec![Mode::Paper], nodes: 800, attempts: 20, ..params() };
    let all = played(&few, 2);
    let alone = played(&AttackParams { attacks: vec![Attack::Dead], ..few }, 2);
    assert_eq!(all.rows.last(), alone.rows.last());
}

#[test]
fn attacks_that_are_stopped_have_the_rows_that_they_have_samples_for() {
    let run = Run::new(2);
    run.stop();
    let data = attack(&params(), &run).unwrap();
    assert_eq!((data.is_complete, data.rows.len()), (false, 0));
}

#[test]
fn networks_that_cannot_be_attacked_are_refused() {
    let refused = |params| attack(&params, &Run::new(1)).unwrap_err();
    assert_eq!(refused(AttackParams { nodes: 100_001, ..params() }), SimError::Attacked(100_001));
    assert_eq!(refused(AttackParams { actors: 0, ..params() }), SimError::MostActors { most: 250 });
    assert_eq!(refused(AttackParams { actors: 251, ..params() }), SimError::MostActors { most: 250 });
    let cache = SimError::Cache { nodes: 2_000, cache: 2_001 };
    assert_eq!(refused(AttackParams { cache: Some(2_001), ..params() }), cache);
    assert!(matches!(refused(AttackParams { colluding: 2_000, ..params() }), SimError::Table(_)));
}
