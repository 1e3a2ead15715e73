{{- define "pegel.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Cut so that a Service's name, which ends at 63 characters, has room for its suffix. */}}
{{- define "pegel.fullname" -}}
{{- $name := include "pegel.name" . -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $full .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels of an object: (list $ <its further labels>). The chart's own win, so that selectors find their objects. */}}
{{- define "pegel.labels" -}}
{{- $root := index . 0 -}}
{{- $own := dict
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/name" (include "pegel.name" $root)
  "app.kubernetes.io/instance" $root.Release.Name
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- toYaml (merge $own (index . 1) $root.Values.commonLabels) -}}
{{- end -}}

{{- define "pegel.gpu.name" -}}
{{ include "pegel.fullname" . }}-gpu-exporter
{{- end -}}

{{- define "pegel.gpu.selector" -}}
app.kubernetes.io/name: {{ include "pegel.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gpu-exporter
{{- end -}}

{{- define "pegel.gpu.labels" -}}
{{ include "pegel.labels" (list . (dict "app.kubernetes.io/component" "gpu-exporter")) }}
{{- end -}}

{{- define "pegel.gpu.image" -}}
{{- with .Values.gpu.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{- define "pegel.gpu.serviceAccountName" -}}
{{- with .Values.gpu.serviceAccount -}}
{{ .name | default (.create | ternary (include "pegel.gpu.name" $) "default") }}
{{- end -}}
{{- end -}}

{{- define "pegel.gpu.priorityClassName" -}}
{{- with .Values.gpu -}}
{{ .priorityClassName | default (.priorityClass.create | ternary (include "pegel.gpu.name" $) "") }}
{{- end -}}
{{- end -}}

{{/* What Pod Security `restricted` asks of a container, whatever its user. */}}
{{- define "pegel.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end -}}

{{/* "true" when a kind of the Prometheus operator is wanted: (list $ <kind> <enabled>). */}}
{{- define "pegel.monitoring.wanted" -}}
{{- $root := index . 0 -}}
{{- $enabled := index . 2 -}}
{{- if eq (toString $enabled) "auto" -}}
{{- $enabled = $root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" (index . 1)) -}}
{{- end -}}
{{- if $enabled }}true{{ end -}}
{{- end -}}

{{/* The scrape settings that ServiceMonitor and PodMonitor share: (list <settings> <relabelings of the chart>). */}}
{{- define "pegel.monitoring.scrape" -}}
port: pegel-metrics
{{- with (index . 0).interval }}
interval: {{ . }}
{{- end }}
{{- with (index . 0).scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
relabelings:
{{- range concat (index . 1) (index . 0).relabelings }}
  - {{- toYaml . | nindent 4 }}
{{- end }}
{{- with (index . 0).metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Why a kind of the Prometheus operator is not there: (list <its value> <.Values.monitoring>). */}}
{{- define "pegel.notes.missing" -}}
{{- if eq (toString (index (index . 1) (index . 0)).enabled) "auto" -}}
the cluster doesn't know this kind: no Prometheus operator (or rendered without --api-versions)
{{- else -}}
switched off by monitoring.{{ index . 0 }}.enabled
{{- end -}}
{{- end -}}
