// The dashboards that grafana/build.py writes, unchanged but for the values of _config.
local dashboards = {
  'connection-overview.json': import '../../grafana/dashboards/overview.json',
  'connection-service.json': import '../../grafana/dashboards/service.json',
  'connection-history.json': import '../../grafana/dashboards/history.json',
  'connection-monitor.json': import '../../grafana/dashboards/monitor.json',
};

{
  local config = $._config,

  grafanaDashboards+:: {
    [name]: dashboards[name] { tags: config.dashboardTags }
    for name in std.objectFields(dashboards)
  },
}
