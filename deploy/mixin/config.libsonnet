// What an installation can change: `(import 'mixin.libsonnet') + { _config+:: { grafanaUrl: 'https://…' } }`.
{
  _config+:: {
    // Selects the scrape targets that are exporters.
    connectionExporterSelector: 'job="connection-exporter"',

    // Where people reach Grafana and the runbooks; alerts link to both. The defaults are Prometheus templates: its
    // external label grafana_url, and the runbooks that Prometheus itself serves (--web.user-assets).
    grafanaUrl: '{{ $externalLabels.grafana_url }}',
    runbooksUrl: '{{ $externalURL }}/user/runbooks',

    dashboardTags: ['connection-exporter'],
  },
}
