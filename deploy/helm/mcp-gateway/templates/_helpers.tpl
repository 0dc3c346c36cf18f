{{/* The name of every object. */}}
{{- define "gateway.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What never changes in the life of a release: selectors are made of it. */}}
{{- define "gateway.identity" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* The gateway's pods, and nothing else of the release. */}}
{{- define "gateway.selector" -}}
{{ include "gateway.identity" . }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- define "gateway.redis.selector" -}}
{{ include "gateway.identity" . }}
app.kubernetes.io/component: redis
{{- end -}}

{{- define "gateway.test.selector" -}}
{{ include "gateway.identity" . }}
app.kubernetes.io/component: test
{{- end -}}

{{/* Of pods. Without the chart's version, which must not roll them. Call with a dict of the context and the component. */}}
{{- define "gateway.podLabels" -}}
{{ include "gateway.identity" .context }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/version: {{ .context.Chart.AppVersion | quote }}
{{- end -}}

{{/* Of every object. Call with a dict of the context and the component. */}}
{{- define "gateway.labels" -}}
{{ include "gateway.podLabels" . }}
app.kubernetes.io/managed-by: {{ .context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .context.Chart.Name .context.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "gateway.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag -}}
{{ .Values.image.repository }}:{{ $tag }}{{ with .Values.image.digest }}@{{ . }}{{ end }}
{{- end -}}

{{- define "gateway.secretName" -}}
{{- if .Values.secret.create }}{{ include "gateway.fullname" . }}{{ else }}{{ default (include "gateway.fullname" .) .Values.secret.existingSecret }}{{ end -}}
{{- end -}}

{{- define "gateway.redis.name" -}}
{{ include "gateway.fullname" . }}-redis
{{- end -}}

{{- define "gateway.redis.url" -}}
redis://{{ include "gateway.redis.name" . }}:6379/0
{{- end -}}

{{/* What a pod needs to end in peace, in seconds. The grace of the drain is inside the drain. */}}
{{- define "gateway.shutdown.needed" -}}
{{- $config := .Values.config -}}
{{- ceil (addf .Values.shutdown.preStopSeconds $config.GATEWAY_DRAIN_SECONDS $config.GATEWAY_CLOSE_SECONDS) -}}
{{- end -}}

{{- define "gateway.terminationGracePeriodSeconds" -}}
{{- $needed := include "gateway.shutdown.needed" . | int -}}
{{- $given := .Values.shutdown.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $given -}}
{{- add $needed (.Values.shutdown.slackSeconds | int) -}}
{{- else -}}
{{- $given | int -}}
{{- end -}}
{{- end -}}

{{/* Kubernetes gives up on a rollout that makes no progress for this long. */}}
{{- define "gateway.progressDeadlineSeconds" -}}
{{- $pods := .Values.replicas | int -}}
{{- if .Values.autoscaling.enabled }}{{ $pods = .Values.autoscaling.maxReplicas | int }}{{ end -}}
{{- if kindIs "invalid" .Values.rollout.progressDeadlineSeconds -}}
{{- add 60 (mul $pods (add (include "gateway.terminationGracePeriodSeconds" . | int) (.Values.rollout.minReadySeconds | int))) -}}
{{- else -}}
{{- .Values.rollout.progressDeadlineSeconds | int -}}
{{- end -}}
{{- end -}}

{{/* No more rights than a process needs that only opens sockets. */}}
{{- define "gateway.container.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Settings: strings as they are, numbers without an exponent. */}}
{{- define "gateway.setting" -}}
{{- if kindIs "string" . }}{{ . | quote }}{{ else }}{{ . | toJson | quote }}{{ end -}}
{{- end -}}

{{/* The environment that the gateway and its test share. */}}
{{- define "gateway.environment" -}}
envFrom:
  - configMapRef:
      name: {{ include "gateway.fullname" . }}
  # GATEWAY_KEY, GATEWAY_REDIS_URL, GATEWAY_ENVELOPE_KEY, GATEWAY_ADMIN_KEY, GATEWAY_METRICS_KEY.
  - secretRef:
      name: {{ include "gateway.secretName" . }}
env:
  - name: GATEWAY_PORT
    value: "8004"
  - name: GATEWAY_ADMIN_PORT
    value: "8005"
  # One process per pod; more pods instead of more workers.
  - name: GATEWAY_WORKERS
    value: "1"
{{- if .Values.redis.bundled.enabled }}
  - name: GATEWAY_REDIS_URL
    value: {{ include "gateway.redis.url" . }}
{{- else }}
  # By its name: without it pods don't start. They would, each on its own memory, and know nothing of each other.
  - name: GATEWAY_REDIS_URL
    valueFrom:
      secretKeyRef:
        name: {{ include "gateway.secretName" . }}
        key: GATEWAY_REDIS_URL
{{- end }}
{{- end -}}

{{/* What a schema can't see. Included by the Deployment, so that nothing is rendered before it holds. */}}
{{- define "gateway.validate" -}}
{{- $config := .Values.config -}}
{{- $shutdown := .Values.shutdown -}}
{{- $needed := include "gateway.shutdown.needed" . | int -}}
{{- $given := include "gateway.terminationGracePeriodSeconds" . | int -}}
{{- if lt $given (add $needed 10 | int) -}}
{{- fail (printf "shutdown.terminationGracePeriodSeconds=%d 太短：preStop %v + 排空 %v + 关闭 %v + 余量 10 = %d 秒，否则 Pod 会在排空中被杀 / shutdown.terminationGracePeriodSeconds=%d is too short: preStop %v + drain %v + close %v + slack 10 = %d s, else pods are killed in their drain" $given $shutdown.preStopSeconds $config.GATEWAY_DRAIN_SECONDS $config.GATEWAY_CLOSE_SECONDS (add $needed 10) $given $shutdown.preStopSeconds $config.GATEWAY_DRAIN_SECONDS $config.GATEWAY_CLOSE_SECONDS (add $needed 10)) -}}
{{- end -}}
{{- if and (gt ($config.GATEWAY_DRAIN_SECONDS | float64) 0.0) (ge ($config.GATEWAY_DRAIN_GRACE_SECONDS | float64) ($config.GATEWAY_DRAIN_SECONDS | float64)) -}}
{{- fail (printf "config.GATEWAY_DRAIN_GRACE_SECONDS=%v 必须小于 GATEWAY_DRAIN_SECONDS=%v / config.GATEWAY_DRAIN_GRACE_SECONDS=%v must be less than GATEWAY_DRAIN_SECONDS=%v" $config.GATEWAY_DRAIN_GRACE_SECONDS $config.GATEWAY_DRAIN_SECONDS $config.GATEWAY_DRAIN_GRACE_SECONDS $config.GATEWAY_DRAIN_SECONDS) -}}
{{- end -}}
{{- if and (gt ($config.GATEWAY_DRAIN_SECONDS | float64) 0.0) (lt (addf $shutdown.preStopSeconds $config.GATEWAY_DRAIN_GRACE_SECONDS) 10.0) -}}
{{- fail (printf "shutdown.preStopSeconds=%v + config.GATEWAY_DRAIN_GRACE_SECONDS=%v 必须至少 10 秒（就绪探针失败所需），否则断开的连接会回到正在退出的 Pod / shutdown.preStopSeconds=%v + config.GATEWAY_DRAIN_GRACE_SECONDS=%v must be 10 s or more, the time in which the readiness probe fails: else connections that are closed come back to a pod that leaves" $shutdown.preStopSeconds $config.GATEWAY_DRAIN_GRACE_SECONDS $shutdown.preStopSeconds $config.GATEWAY_DRAIN_GRACE_SECONDS) -}}
{{- end -}}
{{- $name := include "gateway.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "%s 不能作 Service 的名字（须以字母开头，只含小写字母、数字和 -）：请设置 fullnameOverride / %s can't be the name of a Service (a letter first, then small letters, digits and -): set fullnameOverride" $name $name) -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (.Values.autoscaling.minReplicas | int) (.Values.autoscaling.maxReplicas | int)) -}}
{{- fail "autoscaling.minReplicas 不能大于 autoscaling.maxReplicas / autoscaling.minReplicas must not exceed autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and .Values.podMonitor.enabled .Values.serviceMonitor.enabled -}}
{{- fail "podMonitor 和 serviceMonitor 只能启用一个，否则每个 Pod 被抓取两次 / enable podMonitor or serviceMonitor, not both: every pod would be scraped twice" -}}
{{- end -}}
{{- if and .Values.redis.tls.secretName .Values.secret.create (not (contains "ssl_ca_certs=" .Values.secret.redisUrl)) -}}
{{- fail (printf "设置了 redis.tls.secretName，但 secret.redisUrl 没有 ?ssl_ca_certs=%s/ca.crt / redis.tls.secretName is set, but secret.redisUrl has no ?ssl_ca_certs=%s/ca.crt" .Values.redis.tls.mountPath .Values.redis.tls.mountPath) -}}
{{- end -}}
{{- end -}}

{{/* NetworkPolicy: the way out to names and to Redis, and to nothing else. */}}
{{- define "gateway.egress" -}}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
  {{- with .Values.networkPolicy.dnsTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- if .Values.redis.bundled.enabled }}
- ports:
    - port: 6379
      protocol: TCP
  to:
    - podSelector:
        matchLabels:
          {{- include "gateway.redis.selector" . | nindent 10 }}
{{- else }}
- ports:
    {{- range .Values.networkPolicy.redisPorts }}
    - port: {{ . | int }}
      protocol: TCP
    {{- end }}
  {{- with .Values.networkPolicy.redisTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Prometheus' way to the metrics, of both monitors. */}}
{{- define "gateway.endpoint" -}}
- port: admin
  path: /metrics
  interval: {{ .interval }}
{{- if or .context.Values.admin.metricsKeyRequired (and .context.Values.secret.create .context.Values.secret.metricsKey) }}
  authorization:
    type: Bearer
    credentials:
      name: {{ include "gateway.secretName" .context }}
      key: GATEWAY_METRICS_KEY
{{- end }}
{{- end -}}
