{{- /* What the bootstrap Job has to make: a YAML list of names of Secrets; empty where the user brings all. */ -}}
{{- define "sealpod.bootstrapSecrets" -}}
{{- if not .Values.masterKey.existingSecret.name }}
- {{ include "sealpod.masterKeySecret" . }}
{{- end }}
{{- if not .Values.adminKey.existingSecret.name }}
- {{ include "sealpod.adminKeySecret" . }}
{{- end }}
{{- if eq .Values.tls.mode "auto" }}
- {{ include "sealpod.serverCaSecret" . }}
- {{ include "sealpod.serverTlsSecret" . }}
{{- end }}
{{- end }}

{{- /* `spec` of the Job. */ -}}
{{- define "sealpod.bootstrapSpec" -}}
backoffLimit: 20
template:
  metadata:
    {{- include "sealpod.podMetadata" (list . "bootstrap" dict) | nindent 4 }}
  spec:
    {{- include "sealpod.podSpec" . | nindent 4 }}
    serviceAccountName: {{ include "sealpod.component" (list . "bootstrap") }}
    restartPolicy: OnFailure
    containers:
      - name: bootstrap
        image: {{ include "sealpod.image" (list . .Values.operator.image) }}
        imagePullPolicy: {{ .Values.image.pullPolicy }}
        args: [bootstrap]
        env:
          - name: SEALPOD_NAMESPACE
            valueFrom:
              fieldRef: {fieldPath: metadata.namespace}
          {{- if not .Values.masterKey.existingSecret.name }}
          - name: SEALPOD_MASTER_KEY_SECRET
            value: {{ include "sealpod.masterKeySecret" . }}
          {{- end }}
          {{- if not .Values.adminKey.existingSecret.name }}
          - name: SEALPOD_ADMIN_KEY_SECRET
            value: {{ include "sealpod.adminKeySecret" . }}
          {{- end }}
          {{- if eq .Values.tls.mode "auto" }}
          - name: SEALPOD_CA_SECRET
            value: {{ include "sealpod.serverCaSecret" . }}
          - name: SEALPOD_TLS_SECRET
            value: {{ include "sealpod.serverTlsSecret" . }}
          - name: SEALPOD_SERVER_DNS_NAMES
            value: {{ include "sealpod.serverDnsNames" . }}
          {{- end }}
          {{- include "sealpod.logEnv" . | nindent 10 }}
        {{- with .Values.bootstrap.resources }}
        resources:
          {{- toYaml . | nindent 10 }}
        {{- end }}
        securityContext:
          {{- include "sealpod.containerSecurityContext" . | nindent 10 }}
{{- end }}
