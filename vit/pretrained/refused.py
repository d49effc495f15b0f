"""What other libraries' models have that a plain ViT has not: the sentence for each of their types.

A type that no row names, and that we do not load, is refused more shortly.
"""

WINDOWS = "attends within windows, not across the whole image"
STAGES = "merges patches on the way, so that no one grid of tokens runs through it"
RELATIVE = "makes the bias of its relative positions with a small network, not from a table"
DECOMPOSED = "adds relative positions to its scores that depend on the query (decomposed, as in MViT)"
STEM = "has a convolutional stem where a plain ViT projects each patch once"
CONVOLUTIONS = "is a convolutional network, without attention between patches"
MIXED = "mixes patches by other means than attention"
CHANNELS = "attends between channels, not between tokens"
DIVIDED = "attends in turns, through time and within the frame, so that no one matrix holds its attention"
TWISTED = "turns the two numbers of a pair by different angles, which is no rotation by a place"
VIDEO = "reads video by other parts than joint attention over all patches"
NAFLEX = "packs pictures of many shapes into one padded sequence (NaFlex)"
PACKED = "reads patches of pictures of any size, cut beforehand and packed into one sequence"
FRACTIONS = "gives each patch the nearest position of its table, so that no table fits another size (NaViT)"
GROUPED = "shares keys and values between heads (grouped queries)"
SUB_LN = "normalises inside its attention, across heads (sub-LN)"
QUERIES = "adds tokens that ask for objects or masks on the way"
LAST = "adds positions again in front of every layer, and asks for objects with tokens behind the patches"
DETECTOR = "finds objects with a decoder of its own over the features of another network"
LEARNED_TURN = "turns its class token, too, by angles that it has learned"
TILES = "reads a picture as tiles with positions of their own, and gates its layers"
SEVERAL = "reads each picture several times, at several sizes"
SOUND = "reads sound, not pictures"
WORDS = "reads words and a picture in one sequence"
STRIDE = "cuts patches that overlap or reach beyond the picture"
BETWEEN = "has layers that a text tower reads one by one, each with a norm of its own"
SANDWICH = "normalises every branch in front of it and behind it"
WRAPPED = "is a model of timm within one of transformers: ask for timm's own copy"
CROPS = "reads several crops of a picture, each cut into patches beforehand"
SMOOTH = "resamples its table of positions bilinearly, where every other ViT here does it bicubically"
PROMPTS = "reads clicks and boxes, not pictures"
CAUSAL = "lets each patch see only those before it"
LATENTS = "asks the picture by a fixed set of tokens that it has learned, not by its patches"
LETTERS = "reads a line of letters, each by an attention of its own (A3)"
BEHIND = "has its class token behind the patches, and rotary positions that are complex numbers"
CODES = "makes a table of codes of what it sees, behind parts that are no ViT's"
UNEQUAL = "has a bias in the projections of its attention and none in those of its MLP"
CORNERS = "spreads its table of positions from corner to corner at every size, which no ViT here does"

# model_type without what it ends in: _vision, _model, _encoder
TRANSFORMERS: dict[str, str] = {
    kind: why
    for why, kinds in {
        WINDOWS: "sam sam_hq sam3 sam3_vit sam3_video sam3_tracker sam3_tracker_video sam3_lite_text "
        "vitdet vitmatte swin swinv2 swin2sr donut-swin maskformer-swin dinat lw_detr "
        "lw_detr_vit rf_detr rf_detr_dinov2 got_ocr2 deepseek_ocr2 deepseek_ocr2_sam "
        "unlimited_ocr unlimited_ocr_sam slanext pp_formulanet pp_chart2table qwen2_5_vl qwen2_5_omni "
        "exaone4_5",
        STAGES: "hiera sam2 sam2_video sam2_hiera_det edgetam edgetam_video pvt pvt_v2 segformer glpn "
        "groupvit mobilevit mobilevitv2 swiftformer poolformer cvt efficientloftr",
        DECOMPOSED: "seggpt",
        STEM: "vit_hybrid levit",
        CONVOLUTIONS: "convnext convnextv2 dinov3_convnext resnet regnet bit mobilenet_v1 mobilenet_v2 "
        "efficientnet align focalnet hgnet_v2 textnet rt_detr_resnet superpoint pp_lcnet "
        "pp_lcnet_v3 pp_lcnet_v4 uvdoc gemma3n",
        DETECTOR: "detr conditional_detr deformable_detr dab-detr d_fine deimv2 rt_detr rt_detr_v2 "
        "table-transformer pp_doclayout_v2 pp_doclayout_v3 pp_doclayout_v4",
        QUERIES: "eomt eomt_dinov3 videomt",
        LAST: "yolos",
        CHANNELS: "davit florence florence2",
        DIVIDED: "timesformer",
        TWISTED: "vjepa2",
        VIDEO: "videoprism xclip tvp pe_video",
        NAFLEX: "siglip2",
        FRACTIONS: "idefics2 idefics3 smolvlm phi4_multimodal",
        PACKED: "pixtral qwen2_vl qwen3_vl qwen3_vl_moe qwen3_5 qwen3_5_moe qwen3_omni_moe qwen4_exp "
        "glm4v glm4v_moe glm46v glm5_next glm_image glm_ocr kimi_k25 paddleocr_vl "
        "video_llama_3 hunyuan_vl ernie4_5_vl_moe cohere_compass cosmos3_edge dots3_note "
        "lfm3_vl minimax_m3_vl minicpm_ocr minicpmv4_6 minicpmv4_7 inkling2 muse_glimmer "
        "muse_spark pix2struct kosmos-2.5 kosmos_2_5 fuyu",
        GROUPED: "sapiens2",
        LEARNED_TURN: "mlcd",
        TILES: "mllama",
        SEVERAL: "depth_pro",
        SOUND: "audio-spectrogram-transformer clap clap_audio",
        WORDS: "vilt layoutlmv2 layoutlmv3 udop visual_bert lxmert neomme",
        LATENTS: "perceiver",
        STRIDE: "vitpose vitpose_backbone",
        BETWEEN: "bridgetower",
        SANDWICH: "gemma4 gemma4_unified embedding_gemma2",
        CAUSAL: "imagegpt",
        WRAPPED: "timm_wrapper timm_backbone",
        CODES: "ovis2",
        LETTERS: "mgp-str",
        CROPS: "molmo2",
        SMOOTH: "step3p5",
        PROMPTS: "sam_prompt sam_hq_prompt sam2_prompt sam2_video_prompt sam3_tracker_prompt "
        "sam3_tracker_video_prompt edgetam_prompt edgetam_video_prompt",
        MIXED: "inkling",
        BEHIND: "llama4",
    }.items()
    for kind in kinds.split()
}

# module of timm
TIMM: dict[str, str] = {
    module: why
    for why, modules in {
        RELATIVE: "vision_transformer_relpos",
        WINDOWS: "vision_transformer_sam swin_transformer swin_transformer_v2 swin_transformer_v2_cr "
        "maxxvit tiny_vit gcvit",
        STEM: "vision_transformer_hybrid levit vitamin",
        STAGES: "hiera hieradet_sam2 pvt_v2 mvitv2 efficientvit_mit efficientvit_msra fastvit "
        "mobilevit nextvit shvit pit twins nest coat edgenext efficientformer "
        "efficientformer_v2 swiftformer visformer metaformer iformer lowformer inception_next "
        "byoanet",
        MIXED: "mlp_mixer sequencer mambaout focalnet efficientvim",
        UNEQUAL: "deepseek_vit",
        CHANNELS: "xcit davit",
        NAFLEX: "naflexvit",
        SANDWICH: "gemma4_vit",
        CORNERS: "qwen3_vit",
        CONVOLUTIONS: "repvit resnet resnetv2 convnext efficientnet regnet mobilenetv3 vgg densenet byobnet "
        "cspnet cspnext convmixer dla nfnet dpn vovnet ghostnet hardcorenas hgnet hrnet "
        "inception_resnet_v2 inception_v3 inception_v4 lcnetv2 senet xception "
        "xception_aligned nasnet pnasnet rdnet repghost res2net resnest rexnet selecsls sknet "
        "starnet tresnet fasternet",
        "mixes its heads with each other (talking heads)": "cait",
        "mixes content with learned places in its attention (gated positional attention)": "convit",
        "runs two grids of patches beside each other": "crossvit",
        "looks at each patch's pixels by a second transformer": "tnt",
        "weighs the neighbours of a patch by what stands there (outlook attention)": "volo",
    }.items()
    for module in modules.split()
}
