//! Medians, the table and the summary.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::json;

/// The runs of one measurement.
#[derive(Default)]
pub(crate) struct Figure {
    unit: &'static str,
    target: Option<f64>,
    /// Whether less is better.
    ceiling: bool,
    values: Vec<f64>,
}

impl Figure {
    fn sorted(&self) -> Vec<f64> {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        values
    }

    /// A number as people read it.
    pub(crate) fn show(value: f64) -> String {
        match value {
            v if v >= 10_000_000.0 => format!("{:.1} M", v / 1e6),
            v if v >= 1_000_000.0 => format!("{:.2} M", v / 1e6),
            v if v >= 10_000.0 => format!("{:.0} K", v / 1e3),
            v if v >= 100.0 => format!("{v:.0}"),
            v => format!("{v:.3}"),
        }
    }
}

/// All measurements.
#[derive(Default)]
pub(crate) struct Report(BTreeMap<String, Figure>);

impl Report {
    /// Notes one run of a measurement that should reach its target.
    pub(crate) fn note(&mut self, name: &str, unit: &'static str, target: Option<f64>, value: f64) {
        let figure = self.0.entry(name.to_owned()).or_default();
        (figure.unit, figure.target) = (unit, target);
        figure.values.push(value);
    }

    /// Notes one run of a measurement that should stay below its target.
    pub(crate) fn note_ceiling(&mut self, name: &str, unit: &'static str, target: Option<f64>, value: f64) {
        self.note(name, unit, target, value);
        self.0.entry(name.to_owned()).or_default().ceiling = true;
    }

    /// Prints the table and writes the summary.
    pub(crate) fn finish(&self) {
        println!("\n{:<26} {:>10} {:>21} {:>10}  unit", "name", "median", "min .. max", "target");
        let mut summary = serde_json::Map::new();
        for (name, figure) in &self.0 {
            let values = figure.sorted();
            let median = values[values.len() / 2];
            let ok = figure.target.is_none_or(|target| if figure.ceiling { median <= target } else { median >= target });
            let spread = format!("{} .. {}", Figure::show(values[0]), Figure::show(values[values.len() - 1]));
            let target =
                figure.target.map_or_else(String::new, |t| format!("{} {}", if figure.ceiling { "<=" } else { ">=" }, Figure::show(t)));
            let verdict = if ok { "" } else { "  MISSED" };
            println!("{name:<26} {:>10} {spread:>21} {target:>10}  {}{verdict}", Figure::show(median), figure.unit);
            summary.insert(name.clone(), json!({"value": median, "unit": figure.unit, "target": figure.target, "ok": ok}));
        }
        let path = target_dir().join("bench");
        std::fs::create_dir_all(&path).unwrap();
        let path = path.join("summary.json");
        std::fs::write(&path, serde_json::to_vec_pretty(&summary).unwrap()).unwrap();
        println!("\nwritten to {}", path.display());
    }
}

/// The cargo target directory: this program lies in `TARGET/release`.
pub(crate) fn target_dir() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.parent().unwrap().parent().unwrap().to_path_buf()
}
