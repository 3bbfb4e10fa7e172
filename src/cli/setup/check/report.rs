//! What was found: a line for each thing, and what to do about it.

use std::fmt::Write as _;

use serde::Serialize;

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// It works, or is not wanted; it should be known.
    Warn,
    /// It is wrong.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    /// How it is.
    pub(super) verdict: Verdict,
    /// What was looked at.
    pub(super) what: String,
    /// How it was found.
    pub(super) found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

/// All that was found.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// In the order in which a pull meets them.
    pub(super) findings: Vec<Finding>,
}

impl Report {
    /// Notes that something is as it should be.
    pub(super) fn ok(&mut self, what: impl Into<String>, found: impl Into<String>) {
        self.add(Verdict::Ok, what, found, None);
    }

    /// Notes what should be known.
    pub(super) fn warn(
        &mut self,
        what: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(Verdict::Warn, what, found, Some(advice.into()));
    }

    /// Notes what is wrong.
    pub(super) fn fail(
        &mut self,
        what: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(Verdict::Fail, what, found, Some(advice.into()));
    }

    fn add(
        &mut self,
        verdict: Verdict,
        what: impl Into<String>,
        found: impl Into<String>,
        advice: Option<String>,
    ) {
        self.findings.push(Finding {
            verdict,
            what: what.into(),
            found: found.into(),
            advice: advice.filter(|advice| !advice.is_empty()),
        });
    }

    /// Whether nothing is wrong.
    pub(super) fn is_well(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.verdict < Verdict::Fail)
    }

    /// For people: a line for each, and one below it where there is something to do.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for Finding {
            verdict,
            what,
            found,
            advice,
        } in &self.findings
        {
            let word = match verdict {
                Verdict::Ok => "ok",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{word:4}  {what}: {found}");
            if let Some(advice) = advice {
                let _ = writeln!(text, "      -> {advice}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_a_line_and_what_to_do_one_below_it() {
        let mut report = Report::default();
        report.ok("a", "is right");
        report.warn("b", "is odd", "look");
        assert!(report.is_well());
        report.fail("c", "is wrong", "mend it");
        assert!(!report.is_well());
        assert_eq!(
            report.text(),
            "ok    a: is right\nwarn  b: is odd\n      -> look\nFAIL  c: is wrong\n      -> mend it\n"
        );
        let json = serde_json::to_string(&report).unwrap();
        assert!(
            json.starts_with(r#"{"findings":[{"verdict":"ok","what":"a","found":"is right"},"#)
        );
    }
}
