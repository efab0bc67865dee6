{{- define "ryla-serve.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* KubeRay allows at most 47 characters, since it derives longer names from this one. */}}
{{- define "ryla-serve.fullname" -}}
{{- $name := printf "%s-%s" .Release.Name (include "ryla-serve.name" .) -}}
{{- if .Values.fullnameOverride -}}
{{- $name = .Values.fullnameOverride -}}
{{- else if or (contains (include "ryla-serve.name" .) .Release.Name) (hasPrefix "ryla" .Release.Name) -}}
{{- $name = .Release.Name -}}
{{- end -}}
{{- $name = $name | trunc 40 | trimSuffix "-" -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "the objects of this release would be called %q, but the name of a Service must begin with a lower-case letter and have only lower-case letters, digits and hyphens: choose another release name, or set fullnameOverride" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* "true" if callers reach the service through the chart's gateway. */}}
{{- define "ryla-serve.gateway" -}}
{{- if and .Values.gateway.enabled (or (eq .Values.mode "pod") (ne .Values.upgrade.strategy "NewClusterWithIncrementalUpgrade")) -}}
true
{{- end -}}
{{- end -}}

{{/* Name of the Service of Serve's proxies. The callers' Service has the name of the release. */}}
{{- define "ryla-serve.proxies" -}}
{{- include "ryla-serve.fullname" . }}{{ if include "ryla-serve.gateway" . }}-serve-svc{{ end }}
{{- end -}}

{{- define "ryla-serve.selectorLabels" -}}
app.kubernetes.io/part-of: ryla-serve
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/*
Labels of all objects. Ray's pod templates must not have them: a new chart version would change the
templates and start a new cluster.
*/}}
{{- define "ryla-serve.labels" -}}
{{ include "ryla-serve.selectorLabels" . }}
app.kubernetes.io/name: {{ include "ryla-serve.name" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "ryla-serve.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Merges `from` into `into`, map by map; null removes a key. `mergeOverwrite` would ignore 0 and
false.
*/}}
{{- define "ryla-serve.overlay" -}}
{{- $into := .into -}}
{{- range $key, $value := .from -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $into $key -}}
{{- else if and (kindIs "map" $value) (kindIs "map" (get $into $key)) -}}
{{- include "ryla-serve.overlay" (dict "into" (get $into $key) "from" $value) -}}
{{- else -}}
{{- $_ := set $into $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
The Serve config: the preset with `config` merged into its args and `deployments` into its
deployments. With `mode: pod`, Ray has no custom resources, so a replica that requested one would
never be scheduled.
*/}}
{{- define "ryla-serve.serveConfig" -}}
{{- $config := .Files.Get (printf "files/presets/%s.yaml" .Values.preset) | fromYaml -}}
{{- $application := first $config.applications -}}
{{- include "ryla-serve.overlay" (dict "into" $application.args "from" .Values.config) -}}
{{- if eq .Values.mode "pod" -}}
{{- range $name := list "ingress" "runner" -}}
{{- with get $application.args $name -}}
{{- $_ := unset . "resources" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- include "ryla-serve.overlay" (dict "into" $application.args "from" (dict "jobs" (include "ryla-serve.jobs" . | fromYaml))) -}}
{{- include "ryla-serve.overlay" (dict "into" $application.args "from" (include "ryla-serve.provenance" . | fromYaml)) -}}
{{- if .Values.auth.apiKeysSecret -}}
{{- include "ryla-serve.overlay" (dict "into" $application.args "from" (dict "ingress" (dict "api_keys" "/etc/ryla/keys/keys"))) -}}
{{- end -}}
{{- $given := deepCopy .Values.deployments -}}
{{- $deployments := list -}}
{{- range $application.deployments -}}
{{- include "ryla-serve.overlay" (dict "into" . "from" (get $given .name | default dict)) -}}
{{- $_ := unset $given .name -}}
{{- $deployments = append $deployments . -}}
{{- end -}}
{{- range $name, $settings := $given -}}
{{- $deployments = append $deployments (set $settings "name" $name) -}}
{{- end -}}
{{- with $deployments -}}
{{- $_ := set $application "deployments" . -}}
{{- end -}}
{{- if eq .Values.logFormat "json" -}}
{{- range $part := list $config $application -}}
{{- include "ryla-serve.overlay" (dict "into" $part "from" (dict "logging_config" (dict "encoding" "JSON"))) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config "proxy_location" (ternary "EveryNode" "HeadOnly" (eq .Values.mode "rayservice")) -}}
{{- $_ := set $config "http_options" (dict "host" "0.0.0.0" "port" 8000 "request_timeout_s" .Values.requestTimeoutSeconds) -}}
{{- toYaml $config -}}
{{- end -}}

{{/* Settings of jobs that follow from the values, over those in `config`. */}}
{{- define "ryla-serve.jobs" -}}
{{- with .Values.jobs -}}
{{- $jobs := deepCopy (get $.Values.config "jobs" | default dict) -}}
{{- if eq .store "own" -}}
{{- if or (ne $.Values.mode "rayservice") (ne $.Values.faultTolerance.redis "own") -}}
{{- fail "jobs.store `own` needs the chart's Redis: set mode to `rayservice` and faultTolerance.redis to `own`, or jobs.store to `external`" -}}
{{- end -}}
{{- $_ := set $jobs "store" (printf "redis://%s-redis:6379/%d" (include "ryla-serve.fullname" $) (int .database)) -}}
{{- else if eq .store "external" -}}
{{- $_ := set $jobs "store" (required "jobs.address is required for jobs.store `external`" .address) -}}
{{- end -}}
{{- if include "ryla-serve.jobsPassword" $ -}}
{{- $_ := set $jobs "store_password_file" "/etc/ryla/jobs-redis/password" -}}
{{- end -}}
{{- if .files -}}
{{- $_ := set $jobs "files" .files -}}
{{- else if and (ne .store "embedded") (not (get $jobs "files")) -}}
{{- fail (printf "jobs.files is required for jobs.store `%s`: the URL of a bucket or folder that all replicas reach" .store) -}}
{{- end -}}
{{- if .webhookSecret -}}
{{- $_ := set $jobs "webhooks" (merge (dict "secret_file" "/etc/ryla/webhooks/secrets") (get $jobs "webhooks" | default dict)) -}}
{{- end -}}
{{- toYaml $jobs -}}
{{- end -}}
{{- end -}}

{{/* Settings of provenance that follow from the values, over those in `config`. */}}
{{- define "ryla-serve.provenance" -}}
{{- $settings := dict -}}
{{- with .Values.provenance -}}
{{- $c2pa := dict -}}
{{- if .certificateSecret -}}
{{- $c2pa = dict "certificate" "/etc/ryla/certificate/chain.pem" "private_key" "/etc/ryla/certificate/key.pem" -}}
{{- end -}}
{{- with .timestampUrl -}}
{{- $_ := set $c2pa "timestamp_url" . -}}
{{- end -}}
{{- with $c2pa -}}
{{- $_ := set $settings "c2pa" . -}}
{{- end -}}
{{- if .watermarkSecret -}}
{{- $_ := set $settings "watermark" (dict "key" "/etc/ryla/watermark/key") -}}
{{- end -}}
{{- end -}}
{{- if $settings -}}
{{- toYaml (dict "provenance" $settings) -}}
{{- else -}}
{}
{{- end -}}
{{- end -}}

{{/* Name of the Secret with the password of the Redis of jobs, or nothing. */}}
{{- define "ryla-serve.jobsPassword" -}}
{{- if eq .Values.jobs.store "own" -}}
{{ .Values.faultTolerance.passwordSecret }}
{{- else if eq .Values.jobs.store "external" -}}
{{ .Values.jobs.passwordSecret }}
{{- end -}}
{{- end -}}

{{/* Fails if several pods would each keep jobs of their own. */}}
{{- define "ryla-serve.checkJobs" -}}
{{- $application := first (include "ryla-serve.serveConfig" . | fromYaml).applications -}}
{{- if and (eq .Values.mode "rayservice") (eq (dig "jobs" "store" "embedded" $application.args) "embedded") -}}
{{- $pods := 0 -}}
{{- range list "cpu" "l40s" "a100-80g" -}}
{{- with get $.Values.workerGroups . -}}
{{- $pods = add $pods (ternary (int .maxReplicas) 0 .enabled) -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraWorkerGroups -}}
{{- $group := $.Files.Get "files/worker-group.yaml" | fromYaml -}}
{{- include "ryla-serve.overlay" (dict "into" $group "from" .) -}}
{{- $pods = add $pods (ternary (int $group.maxReplicas) 0 $group.enabled) -}}
{{- end -}}
{{- $most := max 1 $pods -}}
{{- range $application.deployments -}}
{{- if has .name (list "Ingress" "Runner") -}}
{{- $count := get . "num_replicas" | default 1 -}}
{{- $scale := get . "autoscaling_config" | default dict -}}
{{- $auto := eq (toString $count) "auto" -}}
{{- $most = max $most (ternary 2 (int $count) $auto) (int (get $scale "max_replicas" | default 1)) -}}
{{- end -}}
{{- end -}}
{{- if gt (int $most) 1 -}}
{{- fail "jobs.store is `embedded`, which keeps jobs on the disk of one pod, but replicas of the Ingress and the Runner may run in several: set jobs.store to `own` or `external` and jobs.files to a bucket, or allow only one replica of each and one worker pod" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "ryla-serve.maxBodyBytes" -}}
{{- $args := (first (include "ryla-serve.serveConfig" . | fromYaml).applications).args -}}
{{- dig "limits" "max_body_bytes" 67108864 $args | int64 -}}
{{- end -}}

{{/* Required by the restricted Pod Security Standard. */}}
{{- define "ryla-serve.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.podUser }}
{{- $user := int64 . }}
runAsUser: {{ $user }}
runAsGroup: {{ $user }}
fsGroup: {{ $user }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "ryla-serve.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/*
Resource requests and limits with GPUs. Takes a dict of resources, gpus and gpuResource. Quantities
are strings, as the operator writes them, since every diff would show a number.
*/}}
{{- define "ryla-serve.resources" -}}
{{- $limits := deepCopy .resources.limits -}}
{{- if .gpus -}}
{{- $_ := set $limits .gpuResource .gpus -}}
{{- end -}}
{{- with .resources.requests }}
requests:
  {{- range $name, $quantity := . }}
  {{ $name }}: {{ toString $quantity | quote }}
  {{- end }}
{{- end }}
{{- with $limits }}
limits:
  {{- range $name, $quantity := . }}
  {{ $name }}: {{ toString $quantity | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Environment of every container that runs Ray. Takes a dict of root and drain (in seconds). */}}
{{- define "ryla-serve.env" -}}
- {name: HOME, value: /tmp}
- {name: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH, value: "serve.http.proxy:middlewares"}
# A proxy that ended is replaced after three failed checks; Serve's default is 10 s between them.
- {name: RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S, value: "2"}
- {name: RYLA_MAX_BODY_BYTES, value: {{ include "ryla-serve.maxBodyBytes" .root | quote }}}
{{- $args := (first (include "ryla-serve.serveConfig" .root | fromYaml).applications).args }}
- {name: RYLA_PROXY, value: {{ $args.proxy | default dict | toJson | quote }}}
{{- with dig "ingress" "api_keys" "" $args }}
- {name: RYLA_API_KEYS, value: {{ . | quote }}}
{{- end }}
{{- if dig "provenance" "verify" "open" false $args }}
- {name: RYLA_OPEN_VERIFY, value: "1"}
{{- end }}
{{- with dig "ingress" "cors_origins" list $args }}
- {name: RYLA_CORS_ORIGINS, value: {{ join " " . | quote }}}
{{- end }}
{{- if include "ryla-serve.gateway" .root }}
# Whose X-Forwarded-For uvicorn takes for the caller's address: everyone's. The network policies let
# only the gateway (and Ray's own pods) reach the proxies, and it overwrites the header.
- {name: FORWARDED_ALLOW_IPS, value: "*"}
{{- end }}
- {name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S, value: {{ .drain | quote }}}
# Threads of PyTorch that spin for long while they wait for others of theirs keep a core from these.
- {name: GOMP_SPINCOUNT, value: "1000"}
# Ray's default buckets end at 10 minutes for a request and 4 minutes for a start.
- {name: RAY_SERVE_REQUEST_LATENCY_BUCKETS_MS, value: "50,100,250,500,1000,2500,5000,10000,20000,40000,60000,120000,300000,600000,1200000,2400000"}
- {name: RAY_SERVE_REPLICA_STARTUP_SHUTDOWN_LATENCY_BUCKETS_MS, value: "1000,5000,10000,20000,40000,60000,120000,240000,480000,960000,1920000"}
# A controller that has started again, as with a new head, kills the replicas that it has not reached
# within this time, though they serve. Ray's default is 30 s.
- {name: RAY_SERVE_SLOW_STARTUP_WARNING_S, value: "300"}
# A pod that is lost at once is known to be lost after five failed checks. Until then, replicas wait
# to send to callers in it, and so do all others that wait for these. Ray's default is 3 s between
# the checks. A pod that is only slow has 10 s for each.
- {name: RAY_health_check_period_ms, value: "1000"}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
{{- include "ryla-serve.logRotation" .root }}
{{- with .root.Values.jobs.env }}
{{ toYaml . }}
{{- end }}
{{- with .root.Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "ryla-serve.logRotation" }}
- {name: RAY_ROTATION_MAX_BYTES, value: {{ .Values.logRotation.maxBytes | int64 | quote }}}
- {name: RAY_ROTATION_BACKUP_COUNT, value: {{ .Values.logRotation.backups | int64 | quote }}}
{{- end -}}

{{/*
"true" if a replica of one of the deployments can run in a pod, which then gets their secrets: if
the pod declares the CPUs and the custom resources that a replica takes. Takes a dict of root,
deployments, group and cpus; without cpus, there are enough.
*/}}
{{- define "ryla-serve.runs" -}}
{{- $app := first (include "ryla-serve.serveConfig" .root | fromYaml).applications -}}
{{- $settings := dict -}}
{{- range $name := .deployments -}}{{- $_ := set $settings $name (get $app.args $name | default dict) -}}{{- end -}}
{{- range $app.deployments -}}
{{- /* Serve takes these in place of the settings, as a whole. */ -}}
{{- if and (hasKey . "ray_actor_options") (hasKey $settings (lower .name)) -}}
{{- $_ := set $settings (lower .name) (.ray_actor_options | default dict) -}}
{{- end -}}
{{- end -}}
{{- $declared := deepCopy (.group.customResources | default dict) -}}
{{- range compact (prepend (.group.alsoAccelerators | default list) (.group.accelerator | default "")) -}}
{{- $_ := set $declared (printf "accelerator_type:%s" .) 1 -}}
{{- end -}}
{{- $enough := not (hasKey . "cpus") -}}
{{- $cpus := float64 .cpus -}}
{{- $runs := false -}}
{{- range $settings -}}
{{- $fits := or $enough (le (float64 (dig "num_cpus" 1.0 .)) $cpus) -}}
{{- range $name, $count := get . "resources" | default dict -}}
{{- $fits = and $fits (le (float64 $count) (float64 (get $declared $name | default 0))) -}}
{{- end -}}
{{- $runs = or $runs $fits -}}
{{- end -}}
{{- ternary "true" "" $runs -}}
{{- end -}}

{{/*
Secrets that only the ingress and the Runner read, as a JSON object of the name of each volume and
that of its Secret. The other pods run the code of models, and do not get them. Takes a dict of
root, cpus and group.
*/}}
{{- define "ryla-serve.secrets" -}}
{{- $secrets := dict -}}
{{- $values := .root.Values -}}
{{- if include "ryla-serve.runs" (merge (dict "deployments" (list "ingress" "runner")) .) -}}
{{- with include "ryla-serve.jobsPassword" .root -}}{{- $_ := set $secrets "jobs-redis" . -}}{{- end -}}
{{- with $values.jobs.webhookSecret -}}{{- $_ := set $secrets "webhooks" . -}}{{- end -}}
{{- with $values.provenance.watermarkSecret -}}{{- $_ := set $secrets "watermark" . -}}{{- end -}}
{{- end -}}
{{- if include "ryla-serve.runs" (merge (dict "deployments" (list "runner")) .) -}}
{{- with $values.provenance.certificateSecret -}}{{- $_ := set $secrets "certificate" . -}}{{- end -}}
{{- end -}}
{{- toJson $secrets -}}
{{- end -}}

{{/*
Mounts of a container that runs Ray. Takes a dict of root, models (whether it reads model files),
cpus (that it declares to Ray, absent in `mode: pod`) and group.
*/}}
{{- define "ryla-serve.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: shm, mountPath: /dev/shm}
{{- if and .models (include "ryla-serve.modelVolume" .root) }}
- {name: models, mountPath: {{ .root.Values.models.path }}, readOnly: true}
{{- end }}
{{- if .root.Values.auth.apiKeysSecret }}
- {name: api-keys, mountPath: /etc/ryla/keys, readOnly: true}
{{- end }}
{{- range $name, $_ := include "ryla-serve.secrets" . | fromJson }}
- {name: {{ $name }}, mountPath: /etc/ryla/{{ $name }}, readOnly: true}
{{- end }}
{{- with .group.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
Volumes of a pod that runs Ray. Takes a dict of root, models, cpus (as for its mounts), group,
tmpSize and shmSize.
*/}}
{{- define "ryla-serve.volumes" -}}
- {name: tmp, emptyDir: {sizeLimit: {{ .tmpSize | quote }}}}
- {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ .shmSize | quote }}}}
{{- if .models }}
{{- with include "ryla-serve.modelVolume" .root }}
- name: models
  {{- . | nindent 2 }}
{{- end }}
{{- end }}
{{- with .root.Values.auth.apiKeysSecret }}
- {name: api-keys, secret: {secretName: {{ . }}}}
{{- end }}
{{- range $name, $secret := include "ryla-serve.secrets" . | fromJson }}
- {name: {{ $name }}, secret: {secretName: {{ $secret }}}}
{{- end }}
{{- with .group.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels added to a pod. Takes a dict of root and group. */}}
{{- define "ryla-serve.podLabels" -}}
{{- with mergeOverwrite (dict) .root.Values.podLabels (.group.labels | default dict) }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Node selector of a pod that runs the service image but no Ray. */}}
{{- define "ryla-serve.archSelector" -}}
{{- with .Values.arch }}
nodeSelector: {kubernetes.io/arch: {{ . }}}
{{- end }}
{{- end -}}

{{/*
The size in bytes of Ray's object store for a /dev/shm of the given GiB. It is 90 % of it, since
Ray silently moves to disk what does not fit.
*/}}
{{- define "ryla-serve.objectStore" -}}
{{- mul . 966367641 -}}
{{- end -}}

{{/* Volume source of the model files, or nothing if there is none. */}}
{{- define "ryla-serve.modelVolume" -}}
{{- with .Values.models -}}
{{- if .volume -}}
{{- toYaml .volume -}}
{{- else if .claim.create -}}
persistentVolumeClaim: {claimName: {{ include "ryla-serve.fullname" $ }}-models}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Node selector, tolerations, affinity, spread, priority class and init containers of a group: the
platform's, then the group's. Takes a dict of root, name and group.
*/}}
{{- define "ryla-serve.placement" -}}
{{- $selector := dict -}}
{{- with .root.Values.arch -}}
{{- $_ := set $selector "kubernetes.io/arch" . -}}
{{- end -}}
{{- $tolerations := list -}}
{{- $affinity := dict -}}
{{- if .group.gpus -}}
{{- $known := get (.root.Files.Get "files/platforms.yaml" | fromYaml) .root.Values.platform -}}
{{- $tolerations = $known.tolerations -}}
{{- with .group.accelerator -}}
{{- $labels := get $known.accelerators . | default dict -}}
{{- if and (not $labels) (not $.group.nodeSelector) (not $.group.affinity) $known.accelerators -}}
{{- fail (printf "worker group %s: platform %s has no known node labels for accelerator %s (only for %s); set nodeSelector in the group" $.name $.root.Values.platform . (keys $known.accelerators | sortAlpha | join ", ")) -}}
{{- end -}}
{{- range $key, $value := $labels -}}
{{- if kindIs "slice" $value -}}
{{- $terms := list (dict "matchExpressions" (list (dict "key" $key "operator" "In" "values" $value))) -}}
{{- $affinity = dict "nodeAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" $terms)) -}}
{{- else -}}
{{- $_ := set $selector $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $selector = mergeOverwrite $selector .group.nodeSelector -}}
{{- $tolerations = concat $tolerations .group.tolerations -}}
{{- $affinity = .group.affinity | default $affinity -}}
{{- with $selector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .group.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .group.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .group.initContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
Annotations of a pod. Takes a dict of root, group and keep (whether the platform's node autoscaler
must not remove the pod's node).
*/}}
{{- define "ryla-serve.annotations" -}}
{{- $platform := get (.root.Files.Get "files/platforms.yaml" | fromYaml) .root.Values.platform -}}
{{- $annotations := ternary $platform.keep dict (not (empty .keep)) -}}
{{- with mergeOverwrite $annotations .root.Values.podAnnotations (.group.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
Environment variables with the API key of the smoke test, and with the name of its Secret. A pod
whose Secret does not exist would never start, so the Secret is optional: `ryla smoke` then names
it.
*/}}
{{- define "ryla-serve.apiKeyEnv" -}}
{{- with .Values.auth.smokeKeySecret }}
- {name: RYLA_API_KEY, valueFrom: {secretKeyRef: {name: {{ . }}, key: key, optional: true}}}
- {name: RYLA_API_KEY_SECRET, value: {{ . }}}
{{- end }}
{{- end -}}
