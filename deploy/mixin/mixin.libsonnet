// The rules and dashboards of connection-exporter as a monitoring mixin (https://monitoring.mixins.dev).
(import 'config.libsonnet') + (import 'rules.libsonnet') + (import 'dashboards.libsonnet')
