{{/*
Whom the pods of a component may talk to, and who to them. A list of destinations that is left empty means any, on the named
ports. Arguments: root, component (a role, init or test), annotations.
*/}}
{{- define "mainstem.networkPolicy" -}}
{{- $root := .root -}}
{{- $v := $root.Values -}}
{{- $policy := $v.networkPolicy -}}
{{- $component := .component -}}
{{- $serves := has $component (list "embedded" "serve") -}}
{{- $isRole := not (has $component (list "init" "test")) -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "mainstem.fullname" $root }}-{{ $component }}
  labels:
    {{- include "mainstem.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $component }}
  {{- with .annotations }}
  annotations:
    {{- . | nindent 4 }}
  {{- end }}
spec:
  podSelector:
    matchLabels:
      {{- include "mainstem.selector" $root | nindent 6 }}
      app.kubernetes.io/component: {{ $component }}
  policyTypes: [Ingress, Egress]
  {{- if $isRole }}
  ingress:
    {{- if $serves }}
    - ports:
        - port: stream
          protocol: TCP
      {{- with $policy.streamFrom }}
      from:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- end }}
    - ports:
        - port: admin
          protocol: TCP
      from:
        - podSelector:
            matchLabels:
              {{- include "mainstem.selector" $root | nindent 14 }}
              app.kubernetes.io/component: test
        {{- with $policy.adminFrom }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  {{- else }}
  ingress: []
  {{- end }}
  egress:
    - ports:
        {{- range $policy.dns.ports }}
        - port: {{ . }}
          protocol: UDP
        - port: {{ . }}
          protocol: TCP
        {{- end }}
      {{- with $policy.dns.to }}
      to:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- if eq $v.mode "cluster" }}
    {{- range $name := list "kafka" "cql" }}
    {{- $server := include (printf "mainstem.%s" $name) $root | fromJson }}
    {{- $to := index $policy $name "to" }}
    {{- if and (not $to) (eq $name "kafka") $v.strimzi.enabled }}
    {{- $to = list (dict "podSelector" (dict "matchLabels" (dict "strimzi.io/cluster" $v.strimzi.name))) }}
    {{- else if and (not $to) (eq $name "cql") $v.scylla.enabled }}
    {{- $to = list (dict "podSelector" (dict "matchLabels" (dict "scylla/cluster" $v.scylla.name))) }}
    {{- end }}
    {{- $ports := list }}
    {{- range $server.addresses }}
    {{- $ports = append $ports (regexFind "[0-9]+$" . | int) }}
    {{- end }}
    {{- range index $policy $name "extraPorts" }}
    {{- $ports = append $ports (int .) }}
    {{- end }}
    # {{ $name }}
    - ports:
        {{- range $ports | uniq }}
        - port: {{ . }}
          protocol: TCP
        {{- end }}
      {{- with $to }}
      to:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- end }}
    {{- end }}
    {{- if has $component (list "embedded" "crawl" "validate" "serve") }}
    # The public internet: {{ if has $component (list "embedded" "crawl") }}hosts{{ else }}whom identities are asked of{{ end }}
    - ports:
        {{- range (ternary $policy.publicPorts (list 443) (has $component (list "embedded" "crawl"))) }}
        - port: {{ . }}
          protocol: TCP
        {{- end }}
      to:
        - ipBlock:
            cidr: 0.0.0.0/0
            except:
              {{- toYaml $policy.privateRanges | nindent 14 }}
        - ipBlock:
            cidr: "::/0"
            except:
              {{- toYaml $policy.privateRangesV6 | nindent 14 }}
    {{- end }}
    {{- if eq $component "test" }}
    - ports:
        - port: admin
          protocol: TCP
      to:
        - podSelector:
            matchLabels:
              {{- include "mainstem.selector" $root | nindent 14 }}
              app.kubernetes.io/component: {{ include "mainstem.server" $root }}
    {{- end }}
    {{- range $extra := $policy.extraEgress }}
    {{- if has $component $extra.roles }}
    - {{- omit $extra "roles" | toYaml | nindent 6 }}
    {{- end }}
    {{- end }}
{{- end }}
