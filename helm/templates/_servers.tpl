{{/*
Where Kafka and CQL are, as JSON: as given, or as the operators' objects of this chart are found. What the operators make
(services, users' passwords, certificates) has names that follow from the objects'.
*/}}

{{- define "mainstem.kafka" -}}
{{- $v := .Values -}}
{{- if $v.strimzi.enabled -}}
{{- $user := include "mainstem.fullname" . -}}
{{- dict
  "addresses" (list (printf "%s-kafka-bootstrap:9093" $v.strimzi.name))
  "tls" true
  "user" $user
  "sasl" "scram-sha-512"
  "password" (dict "secret" $user "key" "password")
  "ca" (dict "secret" (printf "%s-cluster-ca-cert" $v.strimzi.name) "key" "ca.crt")
  "certificate" (dict "secret" "" "key" "")
  | toJson -}}
{{- else -}}
{{- $v.kafka | toJson -}}
{{- end -}}
{{- end }}

{{- define "mainstem.cql" -}}
{{- $v := .Values -}}
{{- if $v.scylla.enabled -}}
{{- $address := printf "%s-client:9042" $v.scylla.name -}}
{{- merge (dict "addresses" (list $address)) (deepCopy $v.cql) | toJson -}}
{{- else -}}
{{- $v.cql | toJson -}}
{{- end -}}
{{- end }}
