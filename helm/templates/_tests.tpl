{{/*
What `helm test` can ask with the relay's own program, the only one in its image: of a cluster, how it stands; of whoever
serves, its list of hosts, where administration is on. Empty where there is nothing to ask.
*/}}
{{- define "mainstem.hasAdministration" -}}
{{- if or .Values.administration.password.secret .Values.administration.tokens.secret -}}true{{- end -}}
{{- end }}

{{- define "mainstem.hasTest" -}}
{{- if or (eq .Values.mode "cluster") (include "mainstem.hasAdministration" .) -}}true{{- end -}}
{{- end }}

{{/* A pod that runs one command and ends. Arguments: root, name, args, env, mounts, volumes. */}}
{{- define "mainstem.testPod" -}}
{{- $root := .root -}}
apiVersion: v1
kind: Pod
metadata:
  name: {{ include "mainstem.fullname" $root }}-test-{{ .name }}
  labels:
    {{- include "mainstem.podLabels" (dict "root" $root "component" "test") | nindent 4 }}
  annotations:
    helm.sh/hook: test
    # One that has failed stays for its log, until the next test.
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  restartPolicy: Never
  activeDeadlineSeconds: 120
  serviceAccountName: {{ include "mainstem.serviceAccount" $root }}
  {{- include "mainstem.podSecurity" $root | nindent 2 }}
  containers:
    - name: test
      image: {{ include "mainstem.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: {{ toJson .args }}
      {{- include "mainstem.containerSecurity" $root | nindent 6 }}
      {{- with .env }}
      env:
        {{- . | trim | nindent 8 }}
      {{- end }}
      resources:
        requests:
          cpu: 50m
          memory: 64Mi
        limits:
          memory: 256Mi
      {{- with .mounts }}
      volumeMounts:
        {{- . | trim | nindent 8 }}
      {{- end }}
  {{- with .volumes }}
  volumes:
    {{- . | trim | nindent 4 }}
  {{- end }}
{{- end }}
