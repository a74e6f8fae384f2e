{{/* Names are fixed: the kinds are cluster-wide, so that a second release beside the first could only fight it. */}}

{{- define "malote.labels" -}}
app.kubernetes.io/name: malote
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: malote
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "malote.operatorSelector" -}}
app.kubernetes.io/name: malote
app.kubernetes.io/component: operator
{{- end }}

{{- define "malote.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* The operator's settings file, in the schema of malote_operator/settings.py. */}}
{{- define "malote.settings" -}}
{{- $image := dict
      "reference" (include "malote.image" .)
      "pullPolicy" .Values.image.pullPolicy
      "pullSecrets" .Values.image.pullSecrets }}
{{- $settings := dict
      "relayNamespace" .Values.relayNamespace.name
      "image" $image
      "endpoint" .Values.endpoint
      "dns" .Values.dns
      "egress" .Values.egress
      "tls" .Values.tls
      "relay" .Values.relay
      "notices" (omit .Values.notices "passwordSecret")
      "bounces" .Values.bounces
      "workers" .Values.operator.workers
      "resyncSeconds" .Values.operator.resyncSeconds
      "rehearsal" .Values.rehearsal }}
{{- toYaml $settings }}
{{- end }}
