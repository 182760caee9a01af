{{/* What all pods have in common. Every one of them is admitted by the Pod Security Standard "restricted". */}}

{{- define "mainstem.podSecurity" -}}
automountServiceAccountToken: false
# Services' addresses in the environment would have names like our settings': a Service "mainstem" makes MAINSTEM_PORT.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "mainstem.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Where the files of a role are mounted. Arguments: root, role. */}}
{{- define "mainstem.fileMounts" -}}
{{- range (include "mainstem.files" . | fromJsonArray) }}
- name: {{ .name }}
  mountPath: /etc/mainstem/{{ .name }}
  readOnly: true
{{- end }}
{{- end }}

{{- define "mainstem.fileVolumes" -}}
{{- range (include "mainstem.files" . | fromJsonArray) }}
- name: {{ .name }}
  {{- if .secret }}
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
  {{- else }}
  configMap:
    name: {{ .configMap }}
    defaultMode: 0444
  {{- end }}
    items:
      - key: {{ .key }}
        path: {{ .key }}
{{- end }}
{{- end }}

{{/* The pod template of a role. Arguments: root, role. */}}
{{- define "mainstem.podTemplate" -}}
{{- $root := .root -}}
{{- $role := .role -}}
{{- $v := index $root.Values $role -}}
{{- $serves := has $role (list "embedded" "serve") -}}
metadata:
  # None that name a version: a new chart with the same pods leaves them alone.
  labels:
    {{- include "mainstem.podLabels" (dict "root" $root "component" $role) | nindent 4 }}
    mainstem/scraped: "true"
    {{- with $v.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: mainstem
    # A change of a setting makes new pods. Not one of the limits: their file is read again while the relay runs.
    checksum/settings: {{ printf "%s%s" (include "mainstem.env" .) $root.Values.network.ca.certificates | sha256sum }}
    {{- with $v.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "mainstem.serviceAccount" $root }}
  {{- include "mainstem.podSecurity" $root | nindent 2 }}
  terminationGracePeriodSeconds: {{ $v.terminationGracePeriodSeconds }}
  {{- with $v.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $v.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if and (hasKey $v "topologySpread") (dig "topologySpread" "enabled" false $v) }}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: {{ $v.topologySpread.whenUnsatisfiable }}
      labelSelector:
        matchLabels:
          {{- include "mainstem.selector" $root | nindent 10 }}
          app.kubernetes.io/component: {{ $role }}
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  containers:
    - name: mainstem
      image: {{ include "mainstem.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [{{ ternary "run" $role (eq $role "embedded") }}]
      {{- include "mainstem.containerSecurity" $root | nindent 6 }}
      env:
        {{- include "mainstem.env" . | nindent 8 }}
      ports:
        {{- if $serves }}
        - name: stream
          containerPort: 2470
        {{- end }}
        - name: admin
          containerPort: 2471
      startupProbe:
        httpGet:
          path: /healthz
          port: admin
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: {{ div (add $v.startupSeconds 4) 5 }}
      livenessProbe:
        httpGet:
          path: /healthz
          port: admin
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet:
          path: /readyz
          port: admin
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 2
      {{- if $v.preStopSeconds }}
      lifecycle:
        preStop:
          sleep:
            seconds: {{ $v.preStopSeconds }}
      {{- end }}
      resources:
        {{- toYaml $v.resources | nindent 8 }}
      {{- $mounts := include "mainstem.fileMounts" . | trim }}
      {{- if or $serves $mounts }}
      volumeMounts:
        {{- if $serves }}
        - name: data
          mountPath: /data
        {{- end }}
        {{- with $mounts }}
        {{- . | nindent 8 }}
        {{- end }}
      {{- end }}
  {{- $volumes := include "mainstem.fileVolumes" . | trim }}
  {{- $ownData := eq $role "serve" }}
  {{- $claimedData := and (eq $role "embedded") $v.storage $v.storage.existingClaim }}
  {{- if or $volumes $ownData $claimedData }}
  volumes:
    {{- if $ownData }}
    # The record of what administration changed here, at most six files of 4 MB.
    - name: data
      emptyDir:
        sizeLimit: 64Mi
    {{- else if $claimedData }}
    - name: data
      persistentVolumeClaim:
        claimName: {{ $v.storage.existingClaim }}
    {{- end }}
    {{- with $volumes }}
    {{- . | nindent 4 }}
    {{- end }}
  {{- end }}
{{- end }}
