{{/*
What a process is told: settings in its environment, and the files they name. Passwords, tokens and keys are only ever files.
*/}}

{{/*
The files of a role, as a JSON list of {name, setting, path, secret | configMap, key}. Arguments: root, role (a role of the
relay, or init or test).
*/}}
{{- define "mainstem.files" -}}
{{- $root := .root -}}
{{- $v := $root.Values -}}
{{- $role := .role -}}
{{- $files := list -}}
{{- $secrets := list -}}
{{- if ne $role "embedded" -}}
{{- $kafka := include "mainstem.kafka" $root | fromJson -}}
{{- $cql := include "mainstem.cql" $root | fromJson -}}
{{- if eq $v.mode "cluster" -}}
{{- $secrets = list
  (list "kafka-password" "MAINSTEM_KAFKA_PASSWORD_FILE" $kafka.password)
  (list "kafka-ca" "MAINSTEM_KAFKA_CA_FILE" $kafka.ca)
  (list "kafka-certificate" "MAINSTEM_KAFKA_CERT_FILE" $kafka.certificate)
  (list "cql-password" "MAINSTEM_CQL_PASSWORD_FILE" $cql.password)
  (list "cql-ca" "MAINSTEM_CQL_CA_FILE" $cql.ca) -}}
{{- end -}}
{{- end -}}
{{- if has $role (list "embedded" "serve") -}}
{{- $secrets = concat $secrets (list
  (list "admin-password" "MAINSTEM_ADMIN_PASSWORD_FILE" $v.administration.password)
  (list "admin-tokens" "MAINSTEM_ADMIN_TOKEN_FILE" $v.administration.tokens)
  (list "subscriber-tokens" "MAINSTEM_SUBSCRIBER_TOKEN_FILE" $v.subscribers.tokens)) -}}
{{- end -}}
{{- range $secrets -}}
{{- $from := index . 2 -}}
{{- if $from.secret -}}
{{- $files = append $files (dict "name" (index . 0) "setting" (index . 1) "secret" $from.secret "key" $from.key) -}}
{{- end -}}
{{- end -}}
{{- if has $role (list "embedded" "crawl" "validate" "serve") -}}
{{- $full := include "mainstem.fullname" $root -}}
{{- if or $v.limits.rules $v.limits.configMap -}}
{{- $name := default (printf "%s-limits" $full) $v.limits.configMap -}}
{{- $files = append $files (dict "name" "limits" "setting" "MAINSTEM_LIMITS" "configMap" $name "key" $v.limits.key) -}}
{{- end -}}
{{- if or $v.network.ca.certificates $v.network.ca.configMap -}}
{{- $name := default (printf "%s-ca" $full) $v.network.ca.configMap -}}
{{- $files = append $files (dict "name" "ca" "setting" "MAINSTEM_CA_FILE" "configMap" $name "key" $v.network.ca.key) -}}
{{- end -}}
{{- end -}}
{{- $files | toJson -}}
{{- end }}

{{/* The settings of a role, as a JSON list of {name, value}. What is left empty is left to the program. Arguments: root, role. */}}
{{- define "mainstem.settings" -}}
{{- $root := .root -}}
{{- $v := $root.Values -}}
{{- $role := .role -}}
{{- $cluster := eq $v.mode "cluster" -}}
{{- $pairs := list -}}
{{- if $cluster -}}
{{- $kafka := include "mainstem.kafka" $root | fromJson -}}
{{- $cql := include "mainstem.cql" $root | fromJson -}}
{{- $pairs = concat $pairs (list
  (list "MAINSTEM_CLUSTER" $v.cluster.name)
  (list "MAINSTEM_KAFKA" (join "," $kafka.addresses))
  (list "MAINSTEM_KAFKA_TLS" (ternary "true" "" $kafka.tls))
  (list "MAINSTEM_KAFKA_USER" $kafka.user)
  (list "MAINSTEM_KAFKA_SASL" (ternary $kafka.sasl "" (ne $kafka.user "")))
  (list "MAINSTEM_CQL" (join "," $cql.addresses))
  (list "MAINSTEM_CQL_DATACENTER" $cql.datacenter)
  (list "MAINSTEM_CQL_TLS" (ternary "true" "" $cql.tls))
  (list "MAINSTEM_CQL_USER" $cql.user)) -}}
{{- end -}}
{{- if has $role (list "embedded" "init") -}}
{{- $pairs = concat $pairs (list
  (list "MAINSTEM_WINDOW" $v.window.time)
  (list "MAINSTEM_WINDOW_BYTES" $v.window.bytes)
  (list "MAINSTEM_SEQ_START" (include "mainstem.number" $v.seqStart))) -}}
{{- end -}}
{{- if eq $role "init" -}}
{{- $pairs = concat $pairs (list
  (list "MAINSTEM_LANES" (include "mainstem.number" $v.cluster.lanes))
  (list "MAINSTEM_HOST_PARTITIONS" (include "mainstem.number" $v.cluster.hostPartitions))
  (list "MAINSTEM_REPLICATION" (include "mainstem.number" $v.cluster.replication))
  (list "MAINSTEM_CQL_REPLICATION" (include "mainstem.number" $v.cluster.cqlReplication))
  (list "MAINSTEM_RAW_BYTES" $v.cluster.rawBytes)) -}}
{{- end -}}
{{- if has $role (list "embedded" "crawl") -}}
{{- $pairs = concat $pairs (list
  (list "MAINSTEM_HOST" (join "," $v.hosts.list))
  (list "MAINSTEM_BOOTSTRAP" $v.hosts.bootstrap)) -}}
{{- end -}}
{{- if has $role (list "embedded" "validate") -}}
{{- $pairs = append $pairs (list "MAINSTEM_WORKERS" (include "mainstem.number" (index $v $role).workers)) -}}
{{- end -}}
{{- if has $role (list "embedded" "validate" "serve") -}}
{{- $pairs = concat $pairs (list
  (list "MAINSTEM_PLC_URL" $v.identities.plcUrl)
  (list "MAINSTEM_PLC_RATE" (include "mainstem.number" $v.identities.plcRate))
  (list "MAINSTEM_PLC_CONCURRENCY" (include "mainstem.number" $v.identities.plcConcurrency))) -}}
{{- end -}}
{{- if has $role (list "embedded" "serve") -}}
{{- $pairs = concat $pairs (list
  (list "MAINSTEM_BIND" (printf "%s:2470" $v.bindAddress))
  (list "MAINSTEM_DATA_DIR" "/data")
  (list "MAINSTEM_SUBSCRIBERS_MAX" (include "mainstem.number" $v.subscribers.max))
  (list "MAINSTEM_SUBSCRIBERS_PER_ADDRESS" (include "mainstem.number" $v.subscribers.perAddress))
  (list "MAINSTEM_TRUSTED_PROXIES" (join "," $v.subscribers.trustedProxies))
  (list "MAINSTEM_COMPRESSION" (ternary "on" "" $v.subscribers.compression))) -}}
{{- end -}}
{{- if has $role (list "embedded" "crawl" "validate" "serve") -}}
{{- $pairs = concat $pairs (list
  (list "MAINSTEM_DEV" (ternary "true" "" $v.network.dev))
  (list "MAINSTEM_CONTACT" $v.network.contact)) -}}
{{- end -}}
{{- if has $role (list "embedded" "crawl" "validate" "sequence" "serve") -}}
{{- $pairs = concat $pairs (list
  (list "MAINSTEM_ADMIN_BIND" (printf "%s:2471" $v.bindAddress))
  (list "MAINSTEM_LOG" $v.log.filter)
  (list "MAINSTEM_LOG_FORMAT" $v.log.format)) -}}
{{- end -}}
{{- range (include "mainstem.files" . | fromJsonArray) -}}
{{- $pairs = append $pairs (list .setting (printf "/etc/mainstem/%s/%s" .name .key)) -}}
{{- end -}}
{{- $settings := list -}}
{{- range $pairs -}}
{{- if index . 1 -}}
{{- $settings = append $settings (dict "name" (index . 0) "value" (index . 1)) -}}
{{- end -}}
{{- end -}}
{{- $settings | toJson -}}
{{- end }}

{{/* A number without the exponent that Go would print a large one with; nothing for null; a word as it is. */}}
{{- define "mainstem.number" -}}
{{- if kindIs "string" . -}}{{ . }}{{- else if not (kindIs "invalid" .) -}}{{ int64 . }}{{- end -}}
{{- end }}

{{/* `env` of a container: the settings, then what the operator adds. Arguments: root, role. */}}
{{- define "mainstem.env" -}}
{{- $v := .root.Values -}}
{{- $settings := include "mainstem.settings" . | fromJsonArray -}}
{{- $own := list -}}
{{- if hasKey $v .role -}}{{- $own = (index $v .role).extraEnv | default list -}}{{- end -}}
{{- $extra := concat $v.extraEnv $own -}}
{{- $seen := dict -}}
{{- range $settings -}}{{- $_ := set $seen .name "by a value of this chart" -}}{{- end -}}
{{- range $extra -}}
{{- if hasKey $seen .name -}}
{{- fail (printf "extraEnv sets %s for %s, which is already set %s; say it in one place only" .name $.role (get $seen .name)) -}}
{{- end -}}
{{- $_ := set $seen .name "by extraEnv" -}}
{{- end -}}
{{- toYaml (concat $settings $extra) -}}
{{- end }}
