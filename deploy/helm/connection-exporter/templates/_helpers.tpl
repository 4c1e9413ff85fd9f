{{/* The name of all objects. */}}
{{- define "connection-exporter.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects our pods. The rules rely on the name: it becomes the job of the scrape. */}}
{{- define "connection-exporter.selectorLabels" -}}
app.kubernetes.io/name: connection-exporter
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "connection-exporter.labels" -}}
{{ include "connection-exporter.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The names of the ConfigMap with the config and of the Secret: ours, or those that exist already. */}}
{{- define "connection-exporter.configMap" -}}
{{- .Values.existingConfigMap | default (include "connection-exporter.fullname" .) -}}
{{- end -}}

{{/* The config as text. Not a default in values.yaml, because Helm would merge it with the services of the user. */}}
{{- define "connection-exporter.config" -}}
{{- if kindIs "string" .Values.config -}}
{{- .Values.config -}}
{{- else if .Values.config -}}
{{- toYaml .Values.config -}}
{{- else -}}
services:
  kubernetes_api:
    kind: http
    url: https://kubernetes.default.svc/livez
    expect: {status: [200, 401, 403]} # it answers; some clusters do not let anonymous clients read the state
    tls: {ca_file: /etc/kubernetes-ca/ca.crt}
{{- end -}}
{{- end -}}

{{- define "connection-exporter.secret" -}}
{{- .Values.existingSecret | default (include "connection-exporter.fullname" .) -}}
{{- end -}}
