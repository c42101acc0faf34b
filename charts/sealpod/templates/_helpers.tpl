{{- /* Name of the chart in labels. */ -}}
{{- define "sealpod.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- /* Prefix of every object's name. 40 characters leave room for the suffixes under Kubernetes' limit of 63. */ -}}
{{- define "sealpod.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "sealpod.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* Name of a component's objects. Call: (list $ "api-server") */ -}}
{{- define "sealpod.component" -}}
{{- printf "%s-%s" (include "sealpod.fullname" (first .)) (last .) -}}
{{- end }}

{{- /* What a selector matches; a Deployment's can never change. Call: (list $ "api-server") */ -}}
{{- define "sealpod.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sealpod.name" (first .) }}
app.kubernetes.io/instance: {{ (first .).Release.Name }}
app.kubernetes.io/component: {{ last . }}
{{- end }}

{{- /* Labels of an object. Call: (list $ "api-server") */ -}}
{{- define "sealpod.labels" -}}
{{- $root := first . -}}
{{ include "sealpod.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: sealpod
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* `metadata` but for name and namespace. Call: (list $ "api-server") */ -}}
{{- define "sealpod.metadata" -}}
labels:
  {{- include "sealpod.labels" . | nindent 2 }}
{{- with (first .).Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* `metadata` of a pod template. Call: (list $ "api-server" .Values.apiServer) */ -}}
{{- define "sealpod.podMetadata" -}}
{{- $root := first . -}}
{{- $component := index . 1 -}}
{{- $values := last . -}}
labels:
  {{- include "sealpod.selectorLabels" (list $root $component) | nindent 2 }}
  app.kubernetes.io/part-of: sealpod
  {{- with merge (dict) ($values.podLabels | default dict) $root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Reference of an image. Call: (list $ .Values.apiServer.image) */ -}}
{{- define "sealpod.image" -}}
{{- $root := first . -}}
{{- $image := last . -}}
{{- $repository := printf "%s/%s" (default $root.Values.image.registry $image.registry) $image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (coalesce $image.tag $root.Values.image.tag $root.Chart.AppVersion) -}}
{{- end -}}
{{- end }}

{{- /* Start of every pod spec: what the restricted Pod Security Standard asks of a pod, and pull secrets. */ -}}
{{- define "sealpod.podSpec" -}}
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

{{- /* What the restricted Pod Security Standard asks of a container. */ -}}
{{- define "sealpod.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* Where pods of a component run. Call: .Values.apiServer */ -}}
{{- define "sealpod.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- /* How replicas of a component spread. Call: (list $ "injector" .Values.injector) */ -}}
{{- define "sealpod.spread" -}}
{{- $selector := dict "matchLabels" (include "sealpod.selectorLabels" (list (first .) (index . 1)) | fromYaml) -}}
{{- $default := list (dict "maxSkew" 1 "topologyKey" "kubernetes.io/hostname" "whenUnsatisfiable" "ScheduleAnyway") -}}
{{- $spread := list -}}
{{- range default $default (last .).topologySpreadConstraints -}}
{{- $spread = append $spread (merge (dict) . (dict "labelSelector" $selector)) -}}
{{- end -}}
topologySpreadConstraints:
  {{- toYaml $spread | nindent 2 }}
{{- end }}

{{- /* Environment that every part reads. */ -}}
{{- define "sealpod.logEnv" -}}
- name: SEALPOD_LOG
  value: {{ .Values.log.level | quote }}
- name: SEALPOD_LOG_FORMAT
  value: {{ .Values.log.format }}
{{- end }}

{{- /* Probes of an operator pod, on its metrics port. */ -}}
{{- define "sealpod.operatorProbes" -}}
livenessProbe:
  httpGet: {path: /livez, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 2
  timeoutSeconds: 5
{{- end }}

{{- /* Names of the Secrets: the user's, or those that the bootstrap Job makes. */ -}}
{{- define "sealpod.masterKeySecret" -}}
{{- default (include "sealpod.component" (list . "master-key")) .Values.masterKey.existingSecret.name -}}
{{- end }}
{{- define "sealpod.adminKeySecret" -}}
{{- default (include "sealpod.component" (list . "admin-key")) .Values.adminKey.existingSecret.name -}}
{{- end }}
{{- define "sealpod.serverCaSecret" -}}
{{- include "sealpod.component" (list . "server-ca") -}}
{{- end }}
{{- define "sealpod.serverTlsSecret" -}}
{{- if eq .Values.tls.mode "existingSecret" -}}
{{- .Values.tls.existingSecret.name -}}
{{- else -}}
{{- include "sealpod.component" (list . "server-tls") -}}
{{- end -}}
{{- end }}

{{- /* Names in the api-server's certificate: first the one by which it is called, last that of `kubectl port-forward`. */ -}}
{{- define "sealpod.serverDnsNames" -}}
{{- $server := include "sealpod.component" (list . "api-server") -}}
{{- printf "%s.%s.svc,%s.%s.svc.cluster.local,%s.%s,%s,localhost" $server .Release.Namespace $server .Release.Namespace $server .Release.Namespace $server -}}
{{- end }}

{{- /* Secrets of the webhook: its certificate, by whomever it is kept, and what the injector keeps beside it. */ -}}
{{- define "sealpod.webhookTlsSecret" -}}
{{- with .Values.injector.certificate -}}
{{- if eq .mode "existingSecret" -}}
{{- .existingSecret.name -}}
{{- else if eq .mode "certManager" -}}
{{- include "sealpod.component" (list $ "webhook-certificate") -}}
{{- else -}}
{{- include "sealpod.component" (list $ "webhook-tls") -}}
{{- end -}}
{{- end -}}
{{- end }}
{{- define "sealpod.webhookOwnSecret" -}}
{{- $own := eq .Values.injector.certificate.mode "auto" | ternary "webhook-ca" "webhook-path" -}}
{{- include "sealpod.component" (list . $own) -}}
{{- end }}

{{- /* The api-server as pods of the cluster call it. */ -}}
{{- define "sealpod.serverUrl" -}}
{{- printf "https://%s.%s.svc:7100" (include "sealpod.component" (list . "api-server")) .Release.Namespace -}}
{{- end }}
