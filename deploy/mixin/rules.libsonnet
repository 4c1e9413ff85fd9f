// The groups of prometheus/rules, unchanged but for the values of _config. They are read from the PrometheusRule that
// scripts/kubernetes.py writes: it has all of them, without YAML aliases, which not every jsonnet resolves.
//
// A group with an alert is in prometheusAlerts as a whole, with its recording rules: the rules of a group run in order,
// and its alerts read what the rules before them have just recorded.
local rules = importstr '../kubernetes/prometheusrule.yaml';

{
  local replacements = [
    ['job="connection-exporter"', $._config.connectionExporterSelector],
    ['{{ $externalLabels.grafana_url }}', std.rstripChars($._config.grafanaUrl, '/')],
    ['{{ $externalURL }}/user/runbooks', std.rstripChars($._config.runbooksUrl, '/')],
  ],
  local configured = std.foldl(function(text, pair) std.strReplace(text, pair[0], pair[1]), replacements, rules),
  local groups = std.parseYaml(configured).spec.groups,
  local hasAlert(group) = std.length([rule for rule in group.rules if std.objectHas(rule, 'alert')]) > 0,

  prometheusAlerts+:: { groups+: [group for group in groups if hasAlert(group)] },
  prometheusRules+:: { groups+: [group for group in groups if !hasAlert(group)] },
}
