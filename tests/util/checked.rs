//! A report that holds to its schema and is read back.

#[path = "../../crates/churn/tests/fixture/schema.rs"]
mod schema;

use lowchurn_churn::Report;
use serde_json::Value;

use crate::util::{Lab, repository};

pub fn report(lab: &Lab, folder: &str) -> Value {
    let report = lab.json(&format!("{folder}/report.json"));
    let path = repository().join("crates/churn/schema/report-v1.schema.json");
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(schema::faults(&schema, &report, true), Vec::<String>::new());
    Report::read(&lab.path(&format!("{folder}/report.json"))).unwrap();
    report
}
