//! Imports go down only.

use crate::cargo::Package;
use crate::finding::Finding;

/// Every crate of the house and its floor, as far as the house is planned.
const FLOORS: &[(&str, u8)] = &[
    ("kith-sansio", 0),
    ("kith-store", 0),
    ("kith-vnet", 0),
    ("kith-identity", 1),
    ("kith-directory", 2),
    ("kith-connect", 3),
    ("kith-transfer", 4),
    ("kith-tunnel", 4),
    ("kith-dht", 4),
    ("kith-onion", 5),
    ("kith-mesh", 5),
    ("kith-actors", 5),
    ("kith-mail", 6),
    ("kith-drop", 6),
    ("kith-query", 6),
    ("kith", 7),
];

/// The program, which has a command for everything, the simulator included.
const PROGRAM: &str = "kith";

/// The simulator stands beside the house and drives floors 0 to 6.
const SIMULATOR: &str = "kith-sim";

/// The tools stand beside the house; nothing of the house may use them.
const TOOLS: &str = "xtask";

/// The test world, for tests and the simulator only.
const TEST_WORLD: &str = "kith-vnet";

fn floor(name: &str) -> Option<u8> {
    FLOORS.iter().find(|(known, _)| *known == name).map(|(_, floor)| *floor)
}

/// Finds crates without a floor and dependencies that do not go down.
pub(crate) fn downwards(packages: &[Package]) -> Vec<Finding> {
    let members = || packages.iter().filter(|package| package.member);
    let mut findings = Vec::new();
    for package in members() {
        if floor(&package.name).is_none() && package.name != SIMULATOR && package.name != TOOLS {
            let what = format!("{} has no floor", package.name);
            findings.push(Finding::new(
                &package.manifest,
                1,
                what,
                "give it one in xtask/src/tidy/layers.rs",
            ));
        }
        for dependency in &package.dependencies {
            if !members().any(|member| member.name == dependency.name) {
                continue;
            }
            if let Some(why) = refused(&package.name, &dependency.name, dependency.dev) {
                let what = format!("{} depends on {}", package.name, dependency.name);
                findings.push(Finding::new(&package.manifest, 1, what, why));
            }
        }
    }
    findings
}

/// Why `user` may not depend on `used`; `None` where it may.
fn refused(user: &str, used: &str, dev: bool) -> Option<&'static str> {
    if user == TOOLS {
        return None;
    }
    if used == SIMULATOR && user == PROGRAM {
        return None;
    }
    if used == TOOLS || used == SIMULATOR {
        return Some("tools stand beside the house and nothing in it uses them");
    }
    if used == TEST_WORLD && user != SIMULATOR {
        return (!dev).then_some("the virtual network is for tests: make it a dev-dependency");
    }
    let (used, ceiling) = (floor(used)?, if user == SIMULATOR { 7 } else { floor(user)? });
    let to_base = ceiling == 0 && used == 0 && user != "kith-sansio";
    (used >= ceiling && !to_base).then_some("imports go down only")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cargo::Dependency;

    #[test]
    fn imports_go_down_only() {
        for (user, used, dev, allowed) in [
            ("kith-identity", "kith-sansio", false, true),
            ("kith-identity", "kith-directory", false, false),
            ("kith-identity", "kith-directory", true, false),
            ("kith-connect", "kith-connect", false, false),
            ("kith-store", "kith-sansio", false, true),
            ("kith-vnet", "kith-sansio", false, true),
            ("kith-sansio", "kith-store", false, false),
            ("kith-transfer", "kith-connect", false, true),
            ("kith-dht", "kith-transfer", false, false),
            ("kith", "kith-transfer", false, true),
            ("kith-sim", "kith-query", false, true),
            ("kith-sim", "kith", false, false),
            ("kith", "kith-sim", false, true),
            ("kith-query", "kith-sim", false, false),
            ("kith", "xtask", true, false),
            ("xtask", "kith-identity", true, true),
            ("kith-connect", "kith-vnet", true, true),
            ("kith-connect", "kith-vnet", false, false),
            ("kith-sim", "kith-vnet", false, true),
        ] {
            assert_eq!(refused(user, used, dev).is_none(), allowed, "{user} -> {used}, dev {dev}");
        }
    }

    #[test]
    fn a_crate_without_a_floor_and_an_import_upwards_are_found() {
        let member = |name: &str, uses: &[&str]| Package {
            name: name.to_owned(),
            manifest: format!("crates/{name}/Cargo.toml"),
            member: true,
            dependencies: uses.iter().map(|&name| Dependency { name: name.to_owned(), dev: false }).collect(),
            ..Package::default()
        };
        let packages =
            [member("kith-attic", &[]), member("kith-identity", &["kith", "serde"]), member("kith", &[])];
        let found = downwards(&packages);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].what, "kith-attic has no floor");
        assert_eq!(found[1].what, "kith-identity depends on kith");
    }
}
