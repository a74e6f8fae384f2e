{{/*
What values.schema.json cannot say, or not in words that tell what to write: it knows names and types, this knows
meaning. A format is a pattern and the sentence a person reads when a value does not match it.
*/}}

{{- define "malote.check" -}}
{{- if not (regexMatch .pattern (toString .value)) }}
  {{- fail (printf "%s is %q: write %s" .path (toString .value) .write) }}
{{- end }}
{{- end }}

{{- define "malote.checks" -}}
{{- $address := "^([0-9]{1,3}(\\.[0-9]{1,3}){3}|[0-9a-fA-F:]*:[0-9a-fA-F:.]+)$" }}
{{- $network := "^([0-9]{1,3}(\\.[0-9]{1,3}){3}|[0-9a-fA-F:]*:[0-9a-fA-F:.]*)/[0-9]{1,3}$" }}
{{- $name := "^([a-z0-9]([-a-z0-9]*[a-z0-9])?\\.)*[a-z0-9]([-a-z0-9]*[a-z0-9])?$" }}
{{- $host := "^([a-z0-9_]([-a-z0-9_]*[a-z0-9_])?\\.)*[a-z0-9]([-a-z0-9]*[a-z0-9])?$" }}
{{- include "malote.check" (dict "path" "endpoint.hostTemplate" "value" .Values.endpoint.hostTemplate "pattern" "\\{tenant\\}" "write" "a host name with {tenant} in it, such as {tenant}.smtp.example.net (without it all tenants would share one name)") }}
{{- range $path, $value := dict "endpoint.hostTemplate" .Values.endpoint.hostTemplate "egress.heloTemplate" .Values.egress.heloTemplate }}
  {{- include "malote.check" (dict "path" $path "value" ($value | replace "{tenant}" "tenant") "pattern" $name "write" "a host name in lower case, without underscores or a dot at its end, such as {tenant}.smtp.example.net") }}
{{- end }}
{{- range $path, $value := dict "dns.spfInclude" .Values.dns.spfInclude "dns.dkimZone" (.Values.dns.dkimZone | default "none") }}
  {{- include "malote.check" (dict "path" $path "value" $value "pattern" $host "write" "a host name in lower case, without a dot at its end, such as spf.example.net") }}
{{- end }}
{{- include "malote.check" (dict "path" "dns.dmarcPolicy" "value" .Values.dns.dmarcPolicy "pattern" "^v=DMARC1; *p=(none|quarantine|reject)(;.*)?$" "write" "a DMARC record, such as v=DMARC1; p=none") }}
{{- range $path, $values := dict "dns.nameservers" .Values.dns.nameservers "relay.nameservers" .Values.relay.nameservers "egress.sourceAddress" (compact (list .Values.egress.sourceAddress)) }}
  {{- range $values }}
    {{- include "malote.check" (dict "path" $path "value" . "pattern" $address "write" "an IPv4 or IPv6 address, such as 192.0.2.53") }}
  {{- end }}
{{- end }}
{{- range $path, $values := dict "dns.allowNetworks" .Values.dns.allowNetworks "egress.allowNetworks" .Values.egress.allowNetworks }}
  {{- range $values }}
    {{- include "malote.check" (dict "path" $path "value" . "pattern" $network "write" "a network in CIDR form, such as 10.0.0.0/8") }}
  {{- end }}
{{- end }}
{{- if and .Values.image.digest (not (regexMatch "^sha256:[0-9a-f]{64}$" .Values.image.digest)) }}
  {{- fail (printf "image.digest is %q: write sha256: and 64 hexadecimal digits, or leave it empty and name a tag" .Values.image.digest) }}
{{- end }}
{{- if and .Values.notices.host (not (contains "@" .Values.notices.fromAddress)) }}
  {{- fail "notices.host is given: write the address that notices come from in notices.fromAddress, such as Malote <no-reply@example.net>" }}
{{- end }}
{{- if and .Values.notices.username (not .Values.notices.passwordSecret.name) }}
  {{- fail (printf "notices.username is given: name the Secret with its password, in namespace %s, in notices.passwordSecret.name" .Release.Namespace) }}
{{- end }}
{{- if and (eq .Values.tls.mode "Secret") (not .Values.tls.secretName) }}
  {{- fail (printf "tls.mode is Secret: name the Secret of type kubernetes.io/tls in namespace %s in tls.secretName" .Values.relayNamespace.name) }}
{{- end }}
{{- if and (eq .Values.tls.mode "CertManager") (not .Values.tls.issuerName) }}
  {{- fail "tls.mode is CertManager: name the issuer in tls.issuerName (and its kind in tls.issuerKind)" }}
{{- end }}
{{- if eq (int .Values.endpoint.submissionPort) (int .Values.endpoint.submissionsPort) }}
  {{- fail (printf "endpoint.submissionPort and endpoint.submissionsPort are both %v: write two ports, such as 587 (STARTTLS) and 465 (TLS)" .Values.endpoint.submissionPort) }}
{{- end }}
{{- if and .Values.bounces.enabled (has (int .Values.bounces.port) (list (int .Values.endpoint.submissionPort) (int .Values.endpoint.submissionsPort))) }}
  {{- fail (printf "bounces.port is %v, which clients submit to: write 25, or another port that leads to it" .Values.bounces.port) }}
{{- end }}
{{- if eq .Values.relayNamespace.name .Release.Namespace }}
  {{- fail (printf "relayNamespace.name is the release's own namespace %s: relays need one of their own, such as malote-relays" .Release.Namespace) }}
{{- end }}
{{- end }}
