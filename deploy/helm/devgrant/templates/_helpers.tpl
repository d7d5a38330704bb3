{{/* One of the generated objects of files/, for this namespace and prefix, with the labels of Helm. */}}
{{- define "devgrant.text" -}}
{{- $text := .root.Files.Get (printf "files/%s.yaml" .file) -}}
{{- if not $text }}{{ fail (printf "the chart has no files/%s.yaml" .file) }}{{ end -}}
{{- $text | replace "chart-namespace" .root.Release.Namespace | replace "chart.prefix" .root.Values.prefix -}}
{{- end }}

{{- define "devgrant.object" -}}
{{- $object := include "devgrant.text" . | fromYaml -}}
{{- $_ := set $object.metadata "labels" (merge (include "devgrant.labels" .root | fromYaml) $object.metadata.labels) -}}
{{- toYaml $object -}}
{{- end }}

{{/* The labels that no other way of install has. */}}
{{- define "devgrant.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "devgrant.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Not empty where the policies are others than the shipped ones. */}}
{{- define "devgrant.ownPolicies" -}}
{{- if or .Values.policies.existingConfigMap .Values.policies.files (not .Values.policies.shipped) }}true{{ end -}}
{{- end }}

{{- define "devgrant.certManager" -}}
{{- if eq .Values.certificates.from "certManager" }}-cert-manager{{ end -}}
{{- end }}
