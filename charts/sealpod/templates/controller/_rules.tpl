{{- /* What the controller does in the namespaces that it works in: as a ClusterRole in all, or as a Role in each of
       `controller.watchNamespaces`. Nothing here may name a kind that is outside of namespaces, but for `namespaces`
       themselves, which RBAC lets a Role of the namespace read. Call: (list $ "" or namespace) */ -}}
{{- define "sealpod.controllerRules" -}}
{{- $root := first . -}}
{{- $namespace := last . -}}
# Patch is for the finalizer.
- apiGroups: [sealpod.dev]
  resources: [applications, environments, secretbindings]
  verbs: [get, list, watch, patch]
- apiGroups: [sealpod.dev]
  resources: [applications/status, environments/status, secretbindings/status]
  verbs: [patch]
# Key Secrets, and the Secrets of spec.kubernetesSecret. RBAC cannot filter by label, so this reaches every Secret; the
# controller watches the metadata of its own, and reads, writes and deletes by name only those that it made. Update is for
# spec.kubernetesSecret alone, delete for that and for the Secret of an application's own key (spec.apiKeySecretName) when
# it moves or is given up; the key Secrets of bindings are patched, and go with their owner.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, update, patch, delete]
# Workloads of bindings with onChange.restart: listed when a value has changed, and rolled out by one annotation on
# their pod template.
- apiGroups: [apps]
  resources: [deployments, statefulsets, daemonsets]
  verbs: [list, patch]
- apiGroups: [argoproj.io]
  resources: [rollouts]
  verbs: [list, patch]
# Pods with the label for injection, whatever it says: their metadata; by name one that runs without it, or is new and named
# no binding, or was made in the place of one that was evicted.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
{{- if $root.Values.controller.evictMissed }}
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
{{- end }}
# Their UIDs are part of what names an owner on the server, and their labels say who may bind.
- apiGroups: [""]
  resources: [namespaces]
  {{- with $namespace }}
  resourceNames: [{{ . }}]
  {{- end }}
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
