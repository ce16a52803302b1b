{{/* Names are fixed: a node has one agent, so a cluster has one release, and Helm refuses a second. */}}

{{/* Labels of every object; the argument is a list of the context and the component, or "" for none. */}}
{{- define "sallyport.labels" -}}
{{- $top := index . 0 -}}
app.kubernetes.io/name: sallyport
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
app.kubernetes.io/part-of: sallyport
app.kubernetes.io/version: {{ $top.Chart.AppVersion | quote }}
{{- end }}

{{/* Labels by which a workload knows its pods; the argument is the component. They can never change. */}}
{{- define "sallyport.selector" -}}
app.kubernetes.io/name: sallyport
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- define "sallyport.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* Fails where values contradict each other in a way that their schema cannot say. */}}
{{- define "sallyport.check" -}}
{{- if eq (int .Values.metrics.agentPort) (int .Values.metrics.controllerPort) -}}
{{- fail "metrics.agentPort and metrics.controllerPort are the same: both are ports of the node" -}}
{{- end -}}
{{- end }}

{{/* host:port of the metrics; the argument is a list of the context and the port. */}}
{{- define "sallyport.metricsAddress" -}}
{{- $host := (index . 0).Values.metrics.address -}}
{{ if contains ":" $host }}[{{ $host }}]{{ else }}{{ $host }}{{ end }}:{{ index . 1 }}
{{- end }}

{{/* A probe by HTTP; the argument is a list of the context and the path. Without a host, the kubelet asks the pod's
     address, which is the node's. */}}
{{- define "sallyport.httpGet" -}}
{{- $host := (index . 0).Values.metrics.address -}}
httpGet:
  path: {{ index . 1 }}
  port: metrics
  {{- if not (has $host (list "" "0.0.0.0" "::")) }}
  host: {{ $host | quote }}
  {{- end }}
{{- end }}

{{/* Where the API server is, for client-go's in-cluster configuration. */}}
{{- define "sallyport.apiServer" -}}
{{- if .Values.apiServer.host -}}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .Values.apiServer.host | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .Values.apiServer.port | quote }}
{{- end }}
{{- end }}

{{/* The memory limit for the Go runtime; the argument is a container's resources. */}}
{{- define "sallyport.memoryLimit" -}}
{{- if dig "limits" "memory" "" (. | default dict) -}}
- name: GOMEMLIMIT
  valueFrom:
    resourceFieldRef:
      resource: limits.memory
{{- end }}
{{- end }}

{{/* Why the definition of IPPool is to be left out, or nothing. It is ours if it has our label and annotation. Where
     Calico keeps its pools in crd.projectcalico.org alone, agents read them there, and a second kind of the same name
     would only lead users astray. */}}
{{- define "sallyport.ippoolsElsewhere" -}}
{{- $crd := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "ippools.projectcalico.org" -}}
{{- $ours := and (dig "metadata" "annotations" "sallyport.dev/version" "" $crd)
  (eq "sallyport" (dig "metadata" "labels" "app.kubernetes.io/part-of" "" $crd)) -}}
{{- $service := dig "spec" "service" "" (lookup "apiregistration.k8s.io/v1" "APIService" "" "v3.projectcalico.org") -}}
{{- if eq .Values.crds.ippool "never" -}}
crds.ippool is never
{{- else if $service -}}
the API service v3.projectcalico.org of {{ $service.namespace }}/{{ $service.name }} serves IPPools
{{- else if and $crd (not $ours) -}}
the cluster has the definition ippools.projectcalico.org from somebody else
{{- else if and (not $crd) (lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "ippools.crd.projectcalico.org") -}}
the cluster has Calico's definition ippools.crd.projectcalico.org
{{- end }}
{{- end }}

{{/* Fails where Helm would delete the definition of IPPool, and with it every pool: it deletes what the release had and has
     no more, unless the object in the cluster says "keep", and one that somebody else has put in the place of ours need
     not say it. That ours was there stands in our other definitions. The argument is why IPPool is left out, or "". */}}
{{- define "sallyport.guardIPPools" -}}
{{- $crd := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "ippools.projectcalico.org" -}}
{{- $other := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "sallyportnodes.sallyport.dev" -}}
{{- if and . $crd (eq "here" (dig "metadata" "annotations" "sallyport.dev/ippools" "" $other))
  (ne "keep" (dig "metadata" "annotations" "helm.sh/resource-policy" "" $crd)) -}}
{{- fail "a third party has replaced Sallyport's definition of IPPool, and Helm would delete it with every pool. First run: kubectl annotate crd ippools.projectcalico.org helm.sh/resource-policy=keep" -}}
{{- end -}}
{{- end }}

{{/* What a container of the agent's pod may do, whether it programs the kernel or cleans up. Root, since the host's
     directories and the names of the loaded iptables tables are root's; of root's rights it keeps one, and that to listen at the
     port of BGP, 179, where it is the pod network. */}}
{{- define "sallyport.agentContainer" -}}
securityContext:
  runAsUser: 0
  runAsGroup: 0
  privileged: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
    add: [NET_ADMIN{{ if .Values.network.enabled }}, NET_BIND_SERVICE{{ end }}]
{{- with .Values.agent.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - name: state
    mountPath: /var/lib/sallyport
  - name: run
    mountPath: /run/sallyport
  {{- if .Values.network.enabled }}
  - name: sysctls
    mountPath: /host/proc/sys/net
  {{- end }}
{{- end }}

{{/* What a container may do that installs the CNI plugin, or removes it. Root, since the directories are root's. */}}
{{- define "sallyport.cniContainer" -}}
securityContext:
  runAsUser: 0
  runAsGroup: 0
  privileged: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
resources:
  requests:
    cpu: 1m
    memory: 16Mi
  limits:
    memory: 128Mi
volumeMounts:
  - name: cni-plugins
    mountPath: /opt/cni/bin
  - name: cni-networks
    mountPath: /etc/cni/net.d
{{- end }}

{{/* A variable of an admission policy: the node whose pod the request's token was made for, or "". */}}
{{- define "sallyport.nodeOfToken" -}}
- name: node
  expression: request.userInfo.?extra["authentication.kubernetes.io/node-name"][?0].orValue("")
{{- end }}
