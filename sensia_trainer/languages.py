"""The one table of languages: FLORES-200 code, ISO 639-1, ISO 639-3, English name.

FLORES-200 codes (`ind_Latn`) name evaluation sets, ISO 639-1 codes (`id`) name bitext columns, and ISO 639-3 codes
(`ind`) are what many corpora use. A language without an ISO 639-1 code goes by its ISO 639-3 code everywhere. The
table has the languages of FLORES-200 and those with an ISO 639-1 code that are spoken now or have much text, each in
its main script; in another one it is a language of its own (`zh_Hant`). A region (`pt_BR`) is none.
"""

import difflib
import functools
import re
from typing import NamedTuple


class Language(NamedTuple):
    """One row of the table; the columns of a bitext are named by `code`."""

    flores: str  # FLORES-200, with its script: "ind_Latn"
    code: str  # of bitext columns: ISO 639-1 where there is one ("id"), else ISO 639-3; "zh_Hant" in another script
    name: str  # in English: "Indonesian"

    @property
    def iso3(self) -> str:
        """ISO 639-3 as FLORES-200 uses it: "ind"."""
        return self.flores.split("_")[0]

    @property
    def script(self) -> str:
        """ISO 15924 code of the script: "Latn"."""
        return self.flores.split("_")[1]

    @property
    def has_spaces(self) -> bool:
        """Whether the script separates words by spaces; lengths are counted in characters where it does not."""
        return self.script not in ("Hans", "Hant", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt")


_TABLE = """
eng_Latn en eng English                | est_Latn et est Estonian            | ind_Latn id ind Indonesian
swh_Latn sw swh Swahili                | tur_Latn tr tur Turkish             | zho_Hans zh zho Chinese
afr_Latn af afr Afrikaans              | als_Latn sq als Albanian            | amh_Ethi am amh Amharic
arb_Arab ar arb Arabic                 | asm_Beng as asm Assamese            | azj_Latn az azj Azerbaijani
bak_Cyrl ba bak Bashkir                | bel_Cyrl be bel Belarusian          | ben_Beng bn ben Bengali
bod_Tibt bo bod Tibetan                | bos_Latn bs bos Bosnian             | bul_Cyrl bg bul Bulgarian
cat_Latn ca cat Catalan                | ces_Latn cs ces Czech               | cym_Latn cy cym Welsh
dan_Latn da dan Danish                 | deu_Latn de deu German              | ell_Grek el ell Greek
epo_Latn eo epo Esperanto              | eus_Latn eu eus Basque              | ewe_Latn ee ewe Ewe
fao_Latn fo fao Faroese                | fin_Latn fi fin Finnish             | fra_Latn fr fra French
gla_Latn gd gla Scottish Gaelic        | gle_Latn ga gle Irish               | glg_Latn gl glg Galician
guj_Gujr gu guj Gujarati               | hat_Latn ht hat Haitian Creole      | hau_Latn ha hau Hausa
heb_Hebr he heb Hebrew                 | hin_Deva hi hin Hindi               | hrv_Latn hr hrv Croatian
hun_Latn hu hun Hungarian              | hye_Armn hy hye Armenian            | ibo_Latn ig ibo Igbo
isl_Latn is isl Icelandic              | ita_Latn it ita Italian             | jav_Latn jv jav Javanese
jpn_Jpan ja jpn Japanese               | kan_Knda kn kan Kannada             | kat_Geor ka kat Georgian
kaz_Cyrl kk kaz Kazakh                 | khk_Cyrl mn khk Mongolian           | khm_Khmr km khm Khmer
kin_Latn rw kin Kinyarwanda            | kir_Cyrl ky kir Kyrgyz              | kor_Hang ko kor Korean
lao_Laoo lo lao Lao                    | lin_Latn ln lin Lingala             | lit_Latn lt lit Lithuanian
ltz_Latn lb ltz Luxembourgish          | lug_Latn lg lug Ganda               | lvs_Latn lv lvs Latvian
mal_Mlym ml mal Malayalam              | mar_Deva mr mar Marathi             | mkd_Cyrl mk mkd Macedonian
mlt_Latn mt mlt Maltese                | mri_Latn mi mri Maori               | mya_Mymr my mya Burmese
nld_Latn nl nld Dutch                  | nno_Latn nn nno Norwegian Nynorsk   | nob_Latn nb nob Norwegian Bokmal
npi_Deva ne npi Nepali                 | nya_Latn ny nya Chichewa            | oci_Latn oc oci Occitan
ory_Orya or ory Odia                   | pan_Guru pa pan Punjabi             | pbt_Arab ps pbt Pashto
pes_Arab fa pes Persian                | plt_Latn mg plt Malagasy            | pol_Latn pl pol Polish
por_Latn pt por Portuguese             | ron_Latn ro ron Romanian            | run_Latn rn run Rundi
rus_Cyrl ru rus Russian                | sin_Sinh si sin Sinhala             | slk_Latn sk slk Slovak
slv_Latn sl slv Slovenian              | smo_Latn sm smo Samoan              | sna_Latn sn sna Shona
snd_Arab sd snd Sindhi                 | som_Latn so som Somali              | sot_Latn st sot Southern Sotho
spa_Latn es spa Spanish                | srp_Cyrl sr srp Serbian             | ssw_Latn ss ssw Swati
sun_Latn su sun Sundanese              | swe_Latn sv swe Swedish             | tam_Taml ta tam Tamil
tat_Cyrl tt tat Tatar                  | tel_Telu te tel Telugu              | tgk_Cyrl tg tgk Tajik
tgl_Latn tl tgl Tagalog                | tha_Thai th tha Thai                | tir_Ethi ti tir Tigrinya
tsn_Latn tn tsn Tswana                 | tso_Latn ts tso Tsonga              | tuk_Latn tk tuk Turkmen
uig_Arab ug uig Uyghur                 | ukr_Cyrl uk ukr Ukrainian           | urd_Arab ur urd Urdu
uzn_Latn uz uzn Uzbek                  | vie_Latn vi vie Vietnamese          | wol_Latn wo wol Wolof
xho_Latn xh xho Xhosa                  | ydd_Hebr yi ydd Yiddish             | yor_Latn yo yor Yoruba
zsm_Latn ms zsm Malay                  | zul_Latn zu zul Zulu                | lim_Latn li lim Limburgish
ace_Latn - ace Acehnese                | ast_Latn - ast Asturian             | ban_Latn - ban Balinese
bjn_Latn - bjn Banjar                  | ceb_Latn - ceb Cebuano              | ckb_Arab - ckb Central Kurdish
fon_Latn - fon Fon                     | fur_Latn - fur Friulian             | ilo_Latn - ilo Ilocano
luo_Latn - luo Luo                     | min_Latn - min Minangkabau          | nso_Latn - nso Northern Sotho
pap_Latn - pap Papiamento              | war_Latn - war Waray                | crh_Latn - crh Crimean Tatar
acm_Arab - acm Mesopotamian Arabic     | acq_Arab - acq Ta'izzi-Adeni Arabic | aeb_Arab - aeb Tunisian Arabic
ajp_Arab - ajp South Levantine Arabic  | aka_Latn ak aka Akan                | apc_Arab - apc North Levantine Arabic
ars_Arab - ars Najdi Arabic            | ary_Arab - ary Moroccan Arabic      | arz_Arab - arz Egyptian Arabic
awa_Deva - awa Awadhi                  | ayr_Latn ay ayr Central Aymara      | azb_Arab - azb South Azerbaijani
bam_Latn bm bam Bambara                | bem_Latn - bem Bemba                | bho_Deva - bho Bhojpuri
bug_Latn - bug Buginese                | cjk_Latn - cjk Chokwe               | dik_Latn - dik Southwestern Dinka
dyu_Latn - dyu Dyula                   | dzo_Tibt dz dzo Dzongkha            | fij_Latn fj fij Fijian
fuv_Latn ff fuv Nigerian Fulfulde      | gaz_Latn om gaz Oromo               | grn_Latn gn grn Guarani
hne_Deva - hne Chhattisgarhi           | kab_Latn - kab Kabyle               | kac_Latn - kac Jingpho
kam_Latn - kam Kamba                   | kas_Arab ks kas Kashmiri            | kbp_Latn - kbp Kabiye
kea_Latn - kea Kabuverdianu            | kik_Latn ki kik Kikuyu              | kmb_Latn - kmb Kimbundu
kmr_Latn ku kmr Northern Kurdish       | knc_Latn kr knc Central Kanuri      | kon_Latn kg kon Kikongo
lij_Latn - lij Ligurian                | lmo_Latn - lmo Lombard              | ltg_Latn - ltg Latgalian
lua_Latn - lua Luba-Kasai              | lus_Latn - lus Mizo                 | mag_Deva - mag Magahi
mai_Deva - mai Maithili                | mni_Beng - mni Meitei               | mos_Latn - mos Mossi
nus_Latn - nus Nuer                    | pag_Latn - pag Pangasinan           | prs_Arab - prs Dari
quy_Latn qu quy Ayacucho Quechua       | sag_Latn sg sag Sango               | san_Deva sa san Sanskrit
sat_Olck - sat Santali                 | scn_Latn - scn Sicilian             | shn_Mymr - shn Shan
srd_Latn sc srd Sardinian              | szl_Latn - szl Silesian             | taq_Latn - taq Tamasheq
tpi_Latn - tpi Tok Pisin               | tum_Latn - tum Tumbuka              | twi_Latn tw twi Twi
tzm_Tfng - tzm Central Atlas Tamazight | umb_Latn - umb Umbundu              | vec_Latn - vec Venetian
yue_Hant - yue Cantonese               | abk_Cyrl ab abk Abkhazian           | aar_Latn aa aar Afar
arg_Latn an arg Aragonese              | ava_Cyrl av ava Avar                | bis_Latn bi bis Bislama
bre_Latn br bre Breton                 | cha_Latn ch cha Chamorro            | che_Cyrl ce che Chechen
chv_Cyrl cv chv Chuvash                | cor_Latn kw cor Cornish             | cos_Latn co cos Corsican
div_Thaa dv div Dhivehi                | fry_Latn fy fry Western Frisian     | glv_Latn gv glv Manx
her_Latn hz her Herero                 | hmo_Latn ho hmo Hiri Motu           | ido_Latn io ido Ido
iii_Yiii ii iii Sichuan Yi             | ile_Latn ie ile Interlingue         | ina_Latn ia ina Interlingua
ike_Cans iu ike Inuktitut              | kal_Latn kl kal Greenlandic         | kom_Cyrl kv kom Komi
kua_Latn kj kua Kwanyama               | lat_Latn la lat Latin               | lub_Latn lu lub Luba-Katanga
mah_Latn mh mah Marshallese            | nau_Latn na nau Nauru               | nav_Latn nv nav Navajo
nbl_Latn nr nbl South Ndebele          | nde_Latn nd nde North Ndebele       | ndo_Latn ng ndo Ndonga
oss_Cyrl os oss Ossetian               | pli_Deva pi pli Pali                | roh_Latn rm roh Romansh
sme_Latn se sme Northern Sami          | tah_Latn ty tah Tahitian            | ton_Latn to ton Tongan
ven_Latn ve ven Venda                  | vol_Latn vo vol Volapük             | wln_Latn wa wln Walloon
zha_Latn za zha Zhuang                 | nds_Latn - nds Low German
"""

LANGUAGES = tuple(
    Language(flores, iso3 if iso1 == "-" else iso1, name)
    for line in _TABLE.strip().splitlines()
    for flores, iso1, iso3, name in (row.split(maxsplit=3) for row in map(str.strip, line.split("|")))
)

# Further codes in use for the same languages: macrolanguages of ISO 639-3, individual languages, old codes.
ALIASES = {
    "swa": "sw", "ekk": "et", "cmn": "zh", "in": "id", "iw": "he", "sqi": "sq", "ara": "ar", "aze": "az", "lav": "lv",
    "mlg": "mg", "mon": "mn", "msa": "ms", "nep": "ne", "no": "nb", "nor": "nb", "ori": "or", "pus": "ps", "fas": "fa",
    "uzb": "uz", "yid": "yi", "que": "qu", "aym": "ay", "kur": "ku", "ful": "ff", "orm": "om", "kau": "kr",
    "din": "dik", "fil": "tl", "iku": "iu",
}  # fmt: skip

# Regions that write the language in another script than its main one (CLDR, "likely subtags").
_SCRIPTS = {"zh_tw": "Hant", "zh_hk": "Hant", "zh_mo": "Hant", "pa_pk": "Arab", "az_ir": "Arab", "kk_cn": "Arab",
            "uz_af": "Arab", "mn_cn": "Mong"}  # fmt: skip

# Names that columns, folders and corpora give the two kinds of Chinese, beside those that every language has.
_CHINESE = {
    "zh": ["zh_Hans", "zh_CN", "zh-CN", "zh_Hans_CN", "zho_cn", "zh_cn"],
    "zh_Hant": ["zh-Hant", "zh_TW", "zh-TW", "zh_tw", "zh_HK", "zh-HK", "zh_Hant_TW", "zh_Hant_HK", "zht"],
}

_BY_CODE = {code: row for row in LANGUAGES for code in (row.code, row.iso3)}
_BY_CODE |= {alias: _BY_CODE[code] for alias, code in ALIASES.items()}
_KNOWN_SCRIPTS = {row.script for row in LANGUAGES} | set(_SCRIPTS.values())


def language(code: str) -> Language:
    """The row of a language, from any of its codes (`id`, `ind`, `ind_Latn`, `zh-CN`; case does not matter).

    A script other than the language's main one makes a row of its own (`sr_Latn`), and so does a region that writes
    it (`zh_TW` is `zh_Hant`); any other region is left out (`pt_BR` is `pt`).

    Raises ValueError with near matches where the code is unknown.
    """
    if isinstance(code, bool):
        raise ValueError(f"language code {code!r}: YAML reads no, on and yes without quotes so; quote it: 'no'")
    row = find_language(str(code))
    if row is None:
        raise ValueError(f"unknown language code {code!r}; {_suggestions(str(code))}")
    return row


@functools.cache
def find_language(code: str) -> Language | None:
    """`language`, but None for an unknown code."""
    parts = re.fullmatch(r"([a-z]{2,3})(?:_([a-z]{4}))?(?:_([a-z]{2}|\d{3}))?", code.strip().lower().replace("-", "_"))
    row = _BY_CODE.get(parts[1]) if parts else None
    if row is None:
        return None
    script = (parts[2] or "").title() or _SCRIPTS.get(f"{row.code}_{parts[3]}", row.script)
    if script == row.script:
        return row
    if script not in _KNOWN_SCRIPTS:
        return None
    return Language(f"{row.iso3}_{script}", f"{row.code}_{script}", f"{row.name} ({script})")


def codes_of(code: str) -> list[str]:
    """Every name a column, a folder or a file may carry for this language, most specific first."""
    row = language(code)
    aliases = [alias for alias, iso in ALIASES.items() if iso == row.code]
    iso3 = [row.iso3] if _BY_CODE[row.iso3] == row else []  # in its main script
    script = [f"{row.code}_{row.script}"] if iso3 else []
    codes = [str(code), row.code, row.flores, *iso3, *script, *_CHINESE.get(row.code, []), *aliases]
    return list(dict.fromkeys(codes))


def _suggestions(code: str) -> str:
    names = {row.name.lower(): row.code for row in LANGUAGES}
    base = code.lower().replace("-", "_").partition("_")[0]
    near = [names[name] for name in difflib.get_close_matches(code.lower(), names, n=2, cutoff=0.7)]
    near = near or ([base] if base in _BY_CODE else difflib.get_close_matches(base, _BY_CODE, n=3, cutoff=0.75))
    known = f"did you mean {' or '.join(map(repr, dict.fromkeys(near)))}? " if near else ""
    return (
        f"{known}Give an ISO 639-1, ISO 639-3 or FLORES-200 code, such as 'id', 'ind' or 'ind_Latn'; a language that "
        "is not in the table of sensia_trainer/bitext/languages.py takes a row there"
    )
