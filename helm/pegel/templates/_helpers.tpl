{{- define "pegel.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/*
Cut so that a Service's name, which ends at 63 characters, has room for its suffix. Nor has that dots, as a release's
name may, or a digit at its beginning.
*/}}
{{- define "pegel.fullname" -}}
{{- $name := include "pegel.name" . -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- $full = default $full .Values.fullnameOverride | replace "." "-" | trunc 40 | trimAll "-" -}}
{{- if not (regexMatch "^[a-z]" $full) -}}
{{- fail (printf "release %q: the name of a Service begins with a letter; set fullnameOverride" .Release.Name) -}}
{{- end -}}
{{- $full -}}
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
{{- toYaml (merge $own (default dict (index . 1)) (default dict $root.Values.commonLabels)) -}}
{{- end -}}

{{- define "pegel.gpu.name" -}}
{{ include "pegel.fullname" . }}-gpu-exporter
{{- end -}}

{{- define "pegel.gpu.selector" -}}
app.kubernetes.io/name: {{ include "pegel.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
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

{{/* Of what has no namespace: two releases of one name must not share it. */}}
{{- define "pegel.gpu.clusterName" -}}
{{ .Release.Namespace }}.{{ include "pegel.gpu.name" . }}
{{- end -}}

{{/* The price table; values from --set are text. */}}
{{- define "pegel.gpu.prices" -}}
{{- with .Values.gpu.prices -}}
currency: {{ .currency | quote }}
default: {{ float64 .default | printf "%.6f" }}
{{- range $table := list "gpus" "profiles" }}
{{- with get $.Values.gpu.prices $table }}
{{ $table }}:
{{- range $word, $price := . }}
  {{ $word | quote }}: {{ float64 $price | printf "%.6f" }}
{{- end }}
{{- end }}
{{- end }}
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

{{/* Fails where two items have the same, which the API server refuses: (list <value> <key> <items>). */}}
{{- define "pegel.unique" -}}
{{- $value := index . 0 -}}
{{- $key := index . 1 -}}
{{- $seen := dict -}}
{{- range index . 2 -}}
{{- $this := index . $key | toString -}}
{{- if hasKey $seen $this -}}
{{- fail (printf "%s: a second %s %q; give it once, and none that the chart sets" $value $key $this) -}}
{{- end -}}
{{- $_ := set $seen $this true -}}
{{- end -}}
{{- end -}}

{{/* A duration such as 1m30s or 0.5s in milliseconds. */}}
{{- define "pegel.milliseconds" -}}
{{- $sum := 0.0 -}}
{{- range $unit, $size := dict "h" 3600000 "m" 60000 "s" 1000 "ms" 1 -}}
{{- $part := regexFind (printf "[0-9.]+%s([0-9]|$)" $unit) $ -}}
{{- $sum = addf $sum (mulf (regexFind "^[0-9.]+" $part | float64) $size) -}}
{{- end -}}
{{- $sum -}}
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

{{/*
The scrape settings that ServiceMonitor and PodMonitor share: (list <their value's name> <.Values.monitoring>
<relabelings of the chart> <metricRelabelings of the chart>). The chart's stand before the user's.
*/}}
{{- define "pegel.monitoring.scrape" -}}
{{- $value := index . 0 -}}
{{- $own := index . 2 -}}
{{- $ownOfSamples := index . 3 -}}
{{- with index . 1 $value -}}
port: pegel-metrics
{{- with .interval }}
interval: {{ . | quote }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . | quote }}
{{- end }}
{{- if and .interval .scrapeTimeout }}
{{- if gt (include "pegel.milliseconds" .scrapeTimeout | float64) (include "pegel.milliseconds" .interval | float64) }}
{{- fail (printf "monitoring.%s: scrapeTimeout %s is longer than interval %s" $value .scrapeTimeout .interval) }}
{{- end }}
{{- end }}
relabelings:
{{- range concat $own (default list .relabelings) }}
  - {{- toYaml . | nindent 4 }}
{{- end }}
{{- with concat $ownOfSamples (default list .metricRelabelings) }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* Why a kind of the Prometheus operator is not there: (list <its value> <.Values.monitoring>). */}}
{{- define "pegel.notes.missing" -}}
{{- if eq (toString (index (index . 1) (index . 0)).enabled) "auto" -}}
the cluster doesn't know this kind: no Prometheus operator (or rendered without --api-versions)
{{- else -}}
switched off by monitoring.{{ index . 0 }}.enabled
{{- end -}}
{{- end -}}
