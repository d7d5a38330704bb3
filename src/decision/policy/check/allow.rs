//! Who may ask: rules that never hold, and names that are none.

use super::super::name;
use super::super::schema::{AllowRule, LabelOperator, LabelRequirement, LabelSelector, Spec};
use super::{Check, Place};
use crate::decision::spelling;

impl Check<'_> {
    pub(super) fn allow(&mut self, at: &Place, spec: &Spec) {
        let Some(rules) = &spec.allow else { return };
        if rules.is_empty() {
            self.error(
                at,
                "`allow` is an empty list, so nobody could ask",
                "no rules",
                "leave `allow` out to let every opted-in namespace ask, or remove the file",
            );
        }
        for (index, rule) in rules.iter().enumerate() {
            self.rule(&at.index(index), rule, spec);
        }
    }

    fn rule(&mut self, at: &Place, rule: &AllowRule, spec: &Spec) {
        if let Some(selector) = &rule.namespace_selector {
            self.selector(&at.key("namespaceSelector"), selector);
        }
        if let Some(accounts) = &rule.service_accounts {
            if accounts.is_empty() {
                self.error(
                    &at.key("serviceAccounts"),
                    "`serviceAccounts` is an empty list, so that the rule never holds",
                    "no names",
                    "leave it out for every service account",
                );
            }
            for (index, pattern) in accounts.iter().enumerate() {
                let literal = pattern.replace('*', "a");
                if !name::is_dns_subdomain(&literal) {
                    self.error(&at.key("serviceAccounts").index(index), format!("`{pattern}` can match no service account"), "not a name", "a service account's name without its namespace; `*` stands for any characters");
                }
            }
        }
        if let Some(modes) = &rule.modes {
            if modes.is_empty() {
                self.error(
                    &at.key("modes"),
                    "`modes` is an empty list, so that the rule never holds",
                    "no modes",
                    "leave it out for every mode but privileged ones",
                );
            }
            for (index, mode) in modes.iter().enumerate() {
                let place = Place::default().key("spec").key("modes").key(mode);
                if !spec.modes.contains_key(mode) && !self.is_written(&place) {
                    let valid = spec.modes.keys().map(String::as_str);
                    let help = format!("modes: {}", spelling::list(valid.clone()));
                    self.unknown(
                        &at.key("modes").index(index),
                        format!("the policy has no mode `{mode}`"),
                        mode,
                        valid,
                        help,
                    );
                }
            }
        }
    }

    fn selector(&mut self, at: &Place, selector: &LabelSelector) {
        for (label, value) in &selector.match_labels {
            self.label(&at.key("matchLabels"), label, value);
        }
        for (index, requirement) in selector.match_expressions.iter().enumerate() {
            let place = at.key("matchExpressions").index(index);
            let LabelRequirement { key, operator, values } = requirement;
            self.label_key(&place.key("key"), key);
            let needs_values = matches!(operator, LabelOperator::In | LabelOperator::NotIn);
            if needs_values == values.is_empty() {
                let takes = if needs_values { "at least one value" } else { "no values" };
                self.error(
                    &place,
                    format!("`{operator:?}` takes {takes}"),
                    takes,
                    "as in any Kubernetes label selector",
                );
            }
            for (index, value) in values.iter().enumerate() {
                self.label_value(&place.key("values").index(index), value);
            }
        }
    }
}
