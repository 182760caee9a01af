{{/*
`mainstem cluster init`: makes the topics and tables that are missing and says what of the others differs; safe to repeat.

It is a hook that runs before the objects of an install or upgrade, so that no new process starts before its topics and
tables are there, and what it says stops an upgrade while the old processes go on. What the hook itself needs is made before it
by hooks too, and goes with it. Where Kafka or ScyllaDB come from this chart they are not there before the install, and a
hook before it would wait for ever: then it is a Job beside the others, which start anew until it is done.
*/}}
{{- define "mainstem.initIsHook" -}}
{{- if not (or .Values.strimzi.enabled .Values.scylla.enabled) -}}true{{- end -}}
{{- end }}

{{/* Annotations of a hook. Arguments: root, weight. */}}
{{- define "mainstem.initHook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{- define "mainstem.initServiceAccount" -}}
{{- if and (include "mainstem.initIsHook" .) .Values.serviceAccount.create -}}
{{ include "mainstem.fullname" . }}-init
{{- else -}}
{{ include "mainstem.serviceAccount" . }}
{{- end -}}
{{- end }}

{{- define "mainstem.initJobSpec" -}}
{{- $v := .Values.init -}}
{{- $names := dict "root" . "role" "init" }}
{{- if include "mainstem.initIsHook" . }}
backoffLimit: {{ $v.backoffLimit }}
activeDeadlineSeconds: {{ $v.activeDeadlineSeconds }}
{{- else }}
# Servers that are only being made come up in their time.
backoffLimit: {{ max 20 $v.backoffLimit }}
activeDeadlineSeconds: {{ max 7200 $v.activeDeadlineSeconds }}
{{- end }}
# 1 says that something differs from what is asked for, and will say so again. What can't be reached yet is 2, and tried again.
podFailurePolicy:
  rules:
    - action: FailJob
      onExitCodes:
        containerName: init
        operator: In
        values: [1]
template:
  metadata:
    labels:
      {{- include "mainstem.podLabels" (dict "root" . "component" "init") | nindent 6 }}
    {{- with $v.podAnnotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    restartPolicy: Never
    serviceAccountName: {{ include "mainstem.initServiceAccount" . }}
    {{- include "mainstem.podSecurity" . | nindent 4 }}
    {{- with $v.nodeSelector }}
    nodeSelector:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $v.tolerations }}
    tolerations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    containers:
      - name: init
        image: {{ include "mainstem.image" . }}
        imagePullPolicy: {{ .Values.image.pullPolicy }}
        args: [cluster, init]
        {{- include "mainstem.containerSecurity" . | nindent 8 }}
        env:
          {{- include "mainstem.env" $names | nindent 10 }}
        resources:
          {{- toYaml $v.resources | nindent 10 }}
        {{- with include "mainstem.fileMounts" $names | trim }}
        volumeMounts:
          {{- . | nindent 10 }}
        {{- end }}
    {{- with include "mainstem.fileVolumes" $names | trim }}
    volumes:
      {{- . | nindent 6 }}
    {{- end }}
{{- end }}
